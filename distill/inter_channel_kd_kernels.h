// What this is: kernel signature and table of the inter-channel correlation loss.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/inter_channel_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/inter_channel_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,C,h,w]; loss 0-d
using InterChannelKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                              const TensorView& gstudent, const InterChannelKdOptions& options);

void inter_channel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const InterChannelKdOptions& options);
void inter_channel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const InterChannelKdOptions& options);
void inter_channel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                           const TensorView& gstudent, const InterChannelKdOptions& options);

inline constexpr KernelTable<InterChannelKdFn> kInterChannelKd{"inter_channel_kd", inter_channel_kd_ref,
                                                               inter_channel_kd_cpu, inter_channel_kd_cuda};

[[nodiscard]] inline double inter_channel_factor(const TensorView& student, const InterChannelKdOptions& options) {
  const auto n = static_cast<double>(student.n());
  return 1 / (static_cast<double>(student.c()) * n * (options.divide_by_n_squared ? n : 1.0));
}

}  // namespace limbeck::distill
