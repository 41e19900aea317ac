// What this is: kernel signature and table of the partial distance of overhaul distillation.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::distill {

/// loss = the value of distill/ofd_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent [N,C,H,W]; margin [C] f64 dense; loss 0-d
using OfdKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& margin,
                     const TensorView& loss, const TensorView& gstudent);

void ofd_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                const TensorView& gstudent);
void ofd_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                const TensorView& gstudent);
void ofd_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                 const TensorView& gstudent);

inline constexpr KernelTable<OfdKdFn> kOfdKd{"ofd_kd", ofd_kd_ref, ofd_kd_cpu, ofd_kd_cuda};

}  // namespace limbeck::distill
