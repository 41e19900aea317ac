// Glue of the inter-channel correlation loss.
#include "distill/inter_channel_kd.h"

#include "distill/check_pair.h"
#include "distill/inter_channel_kd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor inter_channel_kd(const Tensor& student, const Tensor& teacher, const InterChannelKdOptions& options) {
  constexpr const char* kLoss = "inter_channel_kd";
  check_pair_kinds(kLoss, student, teacher);
  const Shape& s = student.shape();
  const Shape& t = teacher.shape();
  LIMBECK_CHECK(
      s.size() == 4 && t.size() == 4 && s[0] == t[0] && s[1] == t[1], kLoss,
      "student of shape {}, teacher of shape {}, expected [N,C,H,W] of equal N and C; put an adapter on the student", s,
      t);
  return run_pair_loss(
      kLoss, student, teacher, [&](const Tensor& sd, const Tensor& td, const Tensor& loss, const Tensor& gradient) {
        kInterChannelKd(sd.device(), sd.dtype(), sd.view(), td.view(), loss.view(), gradient.view(), options);
      });
}

}  // namespace limbeck::distill
