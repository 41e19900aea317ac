// Glue of the squared distance between feature maps.
#include "distill/feature_mse.h"

#include "distill/check_pair.h"
#include "distill/feature_mse_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

std::int64_t divisor_of(const Tensor& map, FeatureReduction reduction) {
  switch (reduction) {
    case FeatureReduction::kSumPerImage: return map.size(0);
    case FeatureReduction::kMean: return map.numel();
    case FeatureReduction::kPerPosition: return map.numel() / map.size(1);
  }
  return 1;
}

}  // namespace

Tensor feature_mse(const Tensor& student, const Tensor& teacher, const FeatureMseOptions& options) {
  constexpr const char* kLoss = "feature_mse";
  check_pair(kLoss, student, teacher);
  LIMBECK_CHECK(student.ndim() > 0, kLoss, "maps of shape {}, expected at least one dimension", student.shape());
  LIMBECK_CHECK(options.reduction != FeatureReduction::kPerPosition || student.ndim() > 1, kLoss,
                "vectors of shape {} have no positions to divide by", student.shape());
  const double factor = 1 / static_cast<double>(divisor_of(student, options.reduction));
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kFeatureMse(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), factor);
                       });
}

}  // namespace limbeck::distill
