// What this is: kernel signatures of the similarity-preserving loss. Views are [N,E]: one row per sample, elements in
//   memory order for the fast kernel; the order does not matter as long as all samples have the same.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/batch_similarity_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/batch_similarity_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,E] dense; teacher [N,D] dense; loss 0-d
using BatchSimilarityKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                                 const TensorView& gstudent);

void batch_similarity_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                             const TensorView& gstudent);
void batch_similarity_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                             const TensorView& gstudent);
void batch_similarity_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                              const TensorView& gstudent);

inline constexpr KernelTable<BatchSimilarityKdFn> kBatchSimilarityKd{"batch_similarity_kd", batch_similarity_kd_ref,
                                                                     batch_similarity_kd_cpu, batch_similarity_kd_cuda};

}  // namespace limbeck::distill
