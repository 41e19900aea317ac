// What this is: the kernel of both dropouts; the backward pass is the same kernel applied to the gradient.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/dispatch.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::ops {

struct DropoutArgs {
  Generator generator;          // at the position of the mask's first element
  double p = 0;                 // probability of zero
  bool whole_channels = false;  // one decision per (n, c) instead of per element

  /// A word keeps its element if its upper 24 bits reach this number. Integer comparison: exact on every device.
  [[nodiscard]] std::uint32_t threshold() const noexcept { return static_cast<std::uint32_t>(std::ceil(p * 0x1.0p24)); }
  [[nodiscard]] double scale() const noexcept { return p < 1 ? 1.0 / (1.0 - p) : 0.0; }
};

/// y = mask(args) x * scale; see Note [dropout masks].
/// Shapes:   equal
using DropoutFn = void(const TensorView& x, const TensorView& y, const DropoutArgs& args);

void dropout_ref(const TensorView& x, const TensorView& y, const DropoutArgs& args);
void dropout_cpu(const TensorView& x, const TensorView& y, const DropoutArgs& args);
void dropout_cuda(const TensorView& x, const TensorView& y, const DropoutArgs& args);

inline constexpr KernelTable<DropoutFn> kDropout{"dropout", dropout_ref, dropout_cpu, dropout_cuda};

}  // namespace limbeck::ops
