// Glue of the squared distance between feature maps.
#include "distill/feature_mse.h"

#include "distill/check_pair.h"
#include "distill/feature_mse_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor feature_mse(const Tensor& student, const Tensor& teacher, const FeatureMseOptions& options) {
  constexpr const char* kLoss = "feature_mse";
  check_pair(kLoss, student, teacher);
  LIMBECK_CHECK(student.ndim() > 0, kLoss, "maps of shape {}, expected at least one dimension", student.shape());
  const bool mean = options.reduction == FeatureReduction::kMean;
  const double factor = 1 / static_cast<double>(mean ? student.numel() : student.size(0));
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kFeatureMse(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), factor);
                       });
}

}  // namespace limbeck::distill
