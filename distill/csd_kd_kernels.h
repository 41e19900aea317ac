// What this is: kernel signature and table of the category-wise similarity loss.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/csd_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/csd_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent [N,C,H,W]; loss 0-d
using CsdKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const CsdKdOptions& options);

void csd_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                const TensorView& gstudent, const CsdKdOptions& options);
void csd_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                const TensorView& gstudent, const CsdKdOptions& options);
void csd_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                 const TensorView& gstudent, const CsdKdOptions& options);

inline constexpr KernelTable<CsdKdFn> kCsdKd{"csd_kd", csd_kd_ref, csd_kd_cpu, csd_kd_cuda};

}  // namespace limbeck::distill
