// What this is: kernel signature and table of the squared distance between feature maps.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/feature_mse.h"

namespace limbeck::distill {

/// loss = factor * sum (s - t)^2; gstudent = 2 factor (s - t), or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent equal; loss 0-d
using FeatureMseFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, double factor);

void feature_mse_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, double factor);
void feature_mse_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, double factor);
void feature_mse_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, double factor);

inline constexpr KernelTable<FeatureMseFn> kFeatureMse{"feature_mse", feature_mse_ref, feature_mse_cpu,
                                                       feature_mse_cuda};

}  // namespace limbeck::distill
