// What this is: kernel signatures and tables of softmax and log-softmax. Views are always 4-D: the glue presents
//   [N,C] as [N,C,1,1].
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/softmax.h"

namespace limbeck::ops {

/// Axis, and whether the logarithm is wanted.
struct SoftmaxArgs {
  SoftmaxAxis axis = SoftmaxAxis::kChannel;
  bool logarithm = false;
};

/// y = softmax(x) or log_softmax(x).
/// Shapes:   x, y [N,C,H,W]
using SoftmaxFn = void(const TensorView& x, const TensorView& y, const SoftmaxArgs& args);
/// Gradient from the forward's result y.
/// Shapes:   y, gy, gx [N,C,H,W]
using SoftmaxBackwardFn = void(const TensorView& y, const TensorView& gy, const TensorView& gx,
                               const SoftmaxArgs& args);

void softmax_ref(const TensorView& x, const TensorView& y, const SoftmaxArgs& args);
void softmax_cpu(const TensorView& x, const TensorView& y, const SoftmaxArgs& args);
void softmax_cuda(const TensorView& x, const TensorView& y, const SoftmaxArgs& args);
void softmax_backward_ref(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args);
void softmax_backward_cpu(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args);
void softmax_backward_cuda(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args);

inline constexpr KernelTable<SoftmaxFn> kSoftmax{"softmax", softmax_ref, softmax_cpu, softmax_cuda};
inline constexpr KernelTable<SoftmaxBackwardFn> kSoftmaxBackward{"softmax_backward", softmax_backward_ref,
                                                                 softmax_backward_cpu, softmax_backward_cuda};

}  // namespace limbeck::ops
