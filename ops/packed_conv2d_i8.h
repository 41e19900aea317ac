// What this is: a convolution of a frozen network in integers of 8 bits: packed weights, bias, residual and activation fused.
// What it is not: the choice of scales (nn/calibration.h), or a convolution in floating point (ops/packed_conv2d.h).
// Read next: ops/quantise.h, ops/conv2d_i8_ref.cpp (the arithmetic as loops), ops/conv2d_i8_cpu.cpp.
//
// Note [int8 arithmetic]
//   A map is u8, affine, one scale for all of it: x = s_x (q_x - z_x). Weights are -127..127, symmetric, one scale per filter: what
//   batch norm leaves in a depthwise convolution differs by orders of magnitude between channels. The sum of products is an exact i32,
//   padding is z_x, which is exactly zero, and only at the end there are floats, once per result, in steps of the result:
//     t = sum (s_x s_w[o] / s_y) + b[o] / s_y         one fused multiply-add
//     t = (q_r - z_r) (s_r / s_y) + t                 with a residual; one fused multiply-add
//     q_y = round(clamp(t, low, high)) + z_y          low and high: activation and the ends of u8; ties to even
//   So every kernel on every processor and for any number of threads gives the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/quantise.h"

namespace limbeck::ops {

/// The filters of a convolution in 8 bits: what floats are rounded to, and what a file may hold in their place.
/// Formula:  w[o] = s_w[o] q[o]
/// Shapes:   w [O,I/G,KH,KW]
struct FiltersI8 {
  Shape shape;
  std::vector<std::int8_t> values;  ///< q, [O][KH][KW][I/G], -127..127
  std::vector<float> scale;         ///< s_w, [O], above 0
  std::vector<float> bias;          ///< [O], in f32
};

/// Filters rounded to 8 bits.
/// Formula:  s_w[o] = max |w[o]| / 127 (1 for a filter of zeros, or smaller than 1e-30), q[o] = round(w[o] / s_w[o])
/// Shapes:   w [O,I/G,KH,KW]; b [O] or undefined, which is zero
/// Types:    f32
/// Throws:   another type or shape; numbers that are not finite.
[[nodiscard]] FiltersI8 filters_i8(const Tensor& w, const Tensor& b);

/// Convolution for inference in integers of 8 bits.
/// Formula:  y = act(conv2d(x, w') + b + residual), w' = s_w q; see filters_i8() and Note [int8 arithmetic]
/// Shapes:   w [O,I/G,KH,KW]; b [O] or undefined
/// Types:    w and b f32. Maps are u8; without `y` the result is f32.
/// Error:    none against the reference: the same bits
/// Throws:   shapes or options that conv2d rejects; w or b of another type or not finite; sums that an i32 cannot hold (66311
///           products or more); scales that are none.
class PackedConv2dI8 {
 public:
  PackedConv2dI8() = default;
  PackedConv2dI8(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act, Quantisation x,
                 std::optional<Quantisation> y, Quantisation residual = {});
  /// The same from filters that are rounded already.
  /// Throws:   filters that are not as FiltersI8 says.
  PackedConv2dI8(const FiltersI8& filters, const Conv2dOptions& options, Activation act, Quantisation x,
                 std::optional<Quantisation> y, Quantisation residual = {});

  /// Shapes:   x u8 [N,I,H,W]; residual u8 [N,O,OH,OW] or undefined; returns [N,O,OH,OW], u8 or f32
  /// Gradient: none
  /// Not for use by two threads at once.
  [[nodiscard]] Tensor operator()(const Tensor& x, const Tensor& residual = {}) const;

  [[nodiscard]] bool defined() const noexcept { return !weights_.empty(); }
  [[nodiscard]] DType result_type() const noexcept { return y_ ? DType::kU8 : DType::kF32; }
  [[nodiscard]] const Shape& weight_shape() const noexcept { return shape_; }

 private:
  [[nodiscard]] bool depthwise() const noexcept;

  Shape shape_;
  Conv2dOptions options_;
  Activation act_ = Activation::kNone;
  Quantisation x_, residual_;
  std::optional<Quantisation> y_;
  std::vector<std::int8_t> weights_;  // [O][KH][KW][I/G]
  std::vector<float> multiplier_, bias_;
  mutable Tensor packed_;  // for the fast kernels; made at the first call
};

}  // namespace limbeck::ops
