// Glue of the local similarity loss.
#include "distill/local_kd.h"

#include "distill/check_pair.h"
#include "distill/local_kd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor local_kd(const Tensor& student, const Tensor& teacher) {
  constexpr const char* kLoss = "local_kd";
  check_positions(kLoss, student, teacher);
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kLocalKd(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view());
                       });
}

}  // namespace limbeck::distill
