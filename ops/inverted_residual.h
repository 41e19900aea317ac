// What this is: the inverted residual of MobileNets (1x1, depthwise, 1x1) of a frozen network in one pass, a strip of rows at a time, and
//   so the separable convolution (depthwise, 1x1).
// What it is not: a general fusion of convolutions; only here is a map in the middle much larger than the maps around it.
// Read next: ops/inverted_residual_amx.cpp; nn/frozen_strips.h, which finds the places.
//
// Note [strips]
//   A block widens its map sixfold, filters it, and narrows it again. One after the other these convolutions write and read maps that
//   fit no cache: they wait for memory most of their time. A strip of rows goes through all of them while its rows are in the
//   second-level cache; the wide maps never exist. The rows that two strips share are widened twice. Between the convolutions
//   the numbers are f32 where that is free, so a bf16 block rounds less than its three convolutions.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor.h"
#include "ops/packed_conv2d.h"

namespace limbeck::ops {

/// Three convolutions of a frozen network as one.
/// Formula:  y = narrow(filter(widen(x))) + residual, each with its bias and activation; the activation of `narrow` after the sum
/// Shapes:   filter depthwise; narrow 1x1; widen, if there is one, as can_widen() says
/// Types:    the compute type that all three have, f32 or bf16
/// Error:    that of the three convolutions
/// Source:   Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018
class PackedInvertedResidual {
 public:
  PackedInvertedResidual(std::optional<PackedConv2d> widen, PackedConv2d filter, PackedConv2d narrow);

  /// True if such a convolution can come before the filter: 1x1, or on matrix units a first layer of few channels (3x3 of 3).
  [[nodiscard]] static bool can_widen(const PackedConv2d& conv) noexcept;
  /// True if it can come behind it.
  [[nodiscard]] static bool can_narrow(const PackedConv2d& conv) noexcept {
    return conv.takes_rows() && !conv.depthwise();
  }

  /// Shapes:   x [N,C,H,W]; residual as y or undefined; y [N,O,OH,OW]; all dense, y apart from x
  /// Types:    the compute type
  /// Throws:   maps of another shape or type.
  /// Not for use by two threads at once.
  void run_into(const Tensor& x, const Tensor& residual, const Tensor& y) const;

  /// Packs the weights now, not at the first call, into memory that the caller chose: a network keeps those of all blocks side by side.
  /// Shapes:   memory bytes [n], n at least packed_bytes(), which is 0 without matrix units
  void pack_into(const Tensor& memory) const;
  [[nodiscard]] std::int64_t packed_bytes() const;

 private:
  [[nodiscard]] Shape wide_shape(const Tensor& x) const;
  void run_panels(const Tensor& x, const Tensor& residual, const Tensor& y) const;

  std::optional<PackedConv2d> widen_;
  PackedConv2d filter_, narrow_;
  mutable Tensor packed_;  // weights of widen, filter and narrow on matrix units
};

}  // namespace limbeck::ops
