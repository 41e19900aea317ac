// What this is: kernel signature and table of the affinity loss.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/ka_affinity.h"

namespace limbeck::distill {

/// loss = the value of distill/ka_affinity.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,D,H,W]; loss 0-d
using KaAffinityFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const KaAffinityOptions& options);

void ka_affinity_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const KaAffinityOptions& options);
void ka_affinity_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const KaAffinityOptions& options);
void ka_affinity_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, const KaAffinityOptions& options);
/// The part of ka_affinity_cpu for KaAffinityReduce::kTdl.
void ka_affinity_tdl_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                         const TensorView& gstudent);

inline constexpr KernelTable<KaAffinityFn> kKaAffinity{"ka_affinity", ka_affinity_ref, ka_affinity_cpu,
                                                       ka_affinity_cuda};

/// Added to the norms that vectors are divided by.
inline constexpr double kAffinityEpsilon = 1e-12;

}  // namespace limbeck::distill
