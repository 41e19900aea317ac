// Glue of the category-wise similarity loss.
#include "distill/csd_kd.h"

#include "distill/check_pair.h"
#include "distill/csd_kd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor csd_kd(const Tensor& student, const Tensor& teacher, const CsdKdOptions& options) {
  constexpr const char* kLoss = "csd_kd";
  check_pair(kLoss, student, teacher);
  check_temperature(kLoss, options.tau);
  LIMBECK_CHECK(student.ndim() == 4, kLoss, "maps of shape {}, expected [N,C,H,W]", student.shape());
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kCsdKd(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), options);
                       });
}

}  // namespace limbeck::distill
