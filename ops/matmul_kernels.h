// What this is: the one matrix product kernel. A transposed operand is a view with swapped strides, so forward and all
//   gradients are this kernel.
#pragma once

#include <utility>

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// c = a b + bias, any strides.
/// Shapes:   a [M,K], b [K,N], c [M,N], or all with the same leading batch; bias [N] or undefined
/// Types:    a and b alike; c may be f32 while they are bf16; bias f32 or as a
using MatmulFn = void(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c);

void matmul_ref(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c);
void matmul_onednn(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c);
void matmul_cuda(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c);

inline constexpr KernelTable<MatmulFn> kMatmul{"matmul", matmul_ref, matmul_onednn, matmul_cuda};

/// The last two dimensions swapped.
/// Shapes:   v [..,M,N]; returns [..,N,M]
[[nodiscard]] inline TensorView transposed(TensorView v) {
  const std::size_t n = v.shape.size();
  std::swap(v.shape[n - 1], v.shape[n - 2]);
  std::swap(v.strides[n - 1], v.strides[n - 2]);
  return v;
}

}  // namespace limbeck::ops
