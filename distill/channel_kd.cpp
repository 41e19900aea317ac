// Glue of the channel-wise distillation loss: checks, dispatch, node.
#include "distill/channel_kd.h"

#include <array>
#include <utility>

#include "distill/channel_kd_kernels.h"
#include "distill/check_pair.h"
#include "distill/feature_mse.h"
#include "distill/pixel_kd.h"
#include "ops/fused_loss.h"
#include "ops/reduce.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "channel_kd";

constexpr std::array<std::pair<ChannelKdNorm, std::string_view>, 4> kNames{{
    {ChannelKdNorm::kChannel, "channel"},
    {ChannelKdNorm::kSpatial, "spatial"},
    {ChannelKdNorm::kNone, "none"},
    {ChannelKdNorm::kChannelMean, "channel_mean"},
}};

struct ChannelKdNode final : ops::FusedLossNode {
  const char* name() const override { return kLoss; }
};

/// The norms that are another loss.
Tensor other_norm(const Tensor& student, const Tensor& teacher, const ChannelKdOptions& options) {
  LIMBECK_CHECK(!options.cross_entropy_form && options.divide_by_channels == 0, kLoss,
                "norm {} together with {}, which belongs to norm channel", name_of(options.norm),
                options.cross_entropy_form ? "the cross-entropy form" : "a number of channels to divide by");
  if (options.norm == ChannelKdNorm::kSpatial) {
    return pixel_kd(student, teacher, {.tau = options.tau, .reduction = PixelKdReduction::kPerPixel});
  }
  if (options.norm == ChannelKdNorm::kNone) {
    return feature_mse(student, teacher, {.reduction = FeatureReduction::kPerPosition});
  }
  return feature_mse(ops::mean(student, {2, 3}, false), ops::mean(teacher, {2, 3}, false));
}

}  // namespace

std::string_view name_of(ChannelKdNorm norm) {
  for (const auto& [value, name] : kNames) {
    if (value == norm) return name;
  }
  return "?";
}

Tensor channel_kd(const Tensor& student, const Tensor& teacher, const ChannelKdOptions& options) {
  check_pair(kLoss, student, teacher);
  check_temperature(kLoss, options.tau);
  LIMBECK_CHECK(student.ndim() == 4, kLoss, "maps of shape {}, expected [N,C,H,W]", student.shape());
  LIMBECK_CHECK(options.divide_by_channels >= 0, kLoss, "{} channels to divide by, expected 0 (C) or more",
                options.divide_by_channels);
  if (options.norm != ChannelKdNorm::kChannel) return other_norm(student, teacher, options);
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
