// The squared distance between feature maps on the GPU.
#include "distill/distance.cuh"
#include "distill/feature_mse_kernels.h"

namespace limbeck::distill {

void feature_mse_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, double factor) {
  // No channel matters here: the whole map is one row.
  distance_loss("feature_mse", PlainDifference{}, student, teacher, loss, gstudent, factor, student.numel());
}

}  // namespace limbeck::distill
