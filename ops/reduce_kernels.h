// What this is: kernel signatures and tables of the reductions.
// The result is passed in the shape of x with stride 0 along the reduced dimensions (expand_view of the keepdim
// result): that states which dimensions are reduced, and every kernel can address y with x's indices.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// y = scale * sum of x. y may be f32 while x is bf16.
/// Shapes:   equal; y has stride 0 along reduced dimensions; x is not empty
using SumFn = void(const TensorView& x, const TensorView& y, double scale);
/// y = max of x.
/// Shapes:   as SumFn
using AmaxFn = void(const TensorView& x, const TensorView& y);
/// gx = gy / ties where x equals y, else 0.
/// Shapes:   all equal; y and gy have stride 0 along reduced dimensions
using AmaxBackwardFn = void(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx);
/// y = index (i64) of the largest x along dimension `dim`.
/// Shapes:   equal; y has stride 0 along `dim`
using ArgmaxFn = void(const TensorView& x, const TensorView& y, std::size_t dim);

void sum_ref(const TensorView& x, const TensorView& y, double scale);
void sum_cpu(const TensorView& x, const TensorView& y, double scale);
void sum_cuda(const TensorView& x, const TensorView& y, double scale);
void amax_ref(const TensorView& x, const TensorView& y);
void amax_cpu(const TensorView& x, const TensorView& y);
void amax_cuda(const TensorView& x, const TensorView& y);
void amax_backward_ref(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx);
void amax_backward_cpu(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx);
void amax_backward_cuda(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx);
void argmax_ref(const TensorView& x, const TensorView& y, std::size_t dim);
void argmax_cpu(const TensorView& x, const TensorView& y, std::size_t dim);
void argmax_cuda(const TensorView& x, const TensorView& y, std::size_t dim);

inline constexpr KernelTable<SumFn> kSum{"sum", sum_ref, sum_cpu, sum_cuda};
inline constexpr KernelTable<AmaxFn> kAmax{"amax", amax_ref, amax_cpu, amax_cuda};
inline constexpr KernelTable<AmaxBackwardFn> kAmaxBackward{"amax", amax_backward_ref, amax_backward_cpu,
                                                           amax_backward_cuda};
inline constexpr KernelTable<ArgmaxFn> kArgmax{"argmax", argmax_ref, argmax_cpu, argmax_cuda};

}  // namespace limbeck::ops
