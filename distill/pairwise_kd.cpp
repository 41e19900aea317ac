// Glue of the pair-wise similarity loss.
#include "distill/pairwise_kd.h"

#include "distill/check_pair.h"
#include "distill/pair_loss.h"
#include "distill/pairwise_kd_kernels.h"

namespace limbeck::distill {

Tensor pairwise_kd(const Tensor& student, const Tensor& teacher, const PairwiseKdOptions& options) {
  constexpr const char* kLoss = "pairwise_kd";
  check_positions(kLoss, student, teacher);
  LIMBECK_CHECK(options.scale >= 0 && options.scale <= 1, kLoss, "scale {}, expected a share of the map in [0,1]",
                options.scale);
  LIMBECK_CHECK(options.kernel >= 1, kLoss, "kernel {}, expected at least 1", options.kernel);
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kPairwiseKd(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), options);
                       });
}

}  // namespace limbeck::distill
