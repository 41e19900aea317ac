// Glue of the channel-wise distillation loss: checks, dispatch, node.
#include "distill/channel_kd.h"

#include "distill/channel_kd_kernels.h"
#include "distill/check_pair.h"
#include "ops/fused_loss.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "channel_kd";

struct ChannelKdNode final : ops::FusedLossNode {
  const char* name() const override { return kLoss; }
};

}  // namespace

Tensor channel_kd(const Tensor& student, const Tensor& teacher, const ChannelKdOptions& options) {
  check_pair(kLoss, student, teacher);
  check_temperature(kLoss, options.tau);
  LIMBECK_CHECK(student.ndim() == 4, kLoss, "maps of shape {}, expected [N,C,H,W]", student.shape());
  const Tensor s = student.dense();
  const Tensor t = teacher.dense();

  Tensor loss = Tensor::empty(Shape{}, ops::loss_dtype(s.dtype()), s.device());
  auto node = record<ChannelKdNode>({&student});
  const Tensor gradient = node ? Tensor::empty_like(s) : Tensor();
  kChannelKd(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), options);
  if (node) {
    node->gradient = gradient;
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::distill
