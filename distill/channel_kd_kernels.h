// What this is: kernel signature and table of the channel-wise distillation loss.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/channel_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/channel_kd.h for norm kChannel; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent [N,C,H,W]; loss 0-d
using ChannelKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                         const TensorView& gstudent, const ChannelKdOptions& options);

void channel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const ChannelKdOptions& options);
void channel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const ChannelKdOptions& options);
void channel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const ChannelKdOptions& options);

inline constexpr KernelTable<ChannelKdFn> kChannelKd{"channel_kd", channel_kd_ref, channel_kd_cpu, channel_kd_cuda};

/// What the sum over images and channels is divided by.
/// Shapes:   student [N,C,H,W]
[[nodiscard]] inline double channel_kd_divisor(const TensorView& student, const ChannelKdOptions& options) {
  return static_cast<double>(student.n() * (options.divide_by_channels > 0 ? options.divide_by_channels : student.c()));
}

}  // namespace limbeck::distill
