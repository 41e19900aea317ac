// Glue of the pixel-wise distillation loss: checks, dispatch, node.
#include "distill/pixel_kd.h"

#include <array>
#include <utility>

#include "distill/check_pair.h"
#include "distill/pixel_kd_kernels.h"
#include "ops/fused_loss.h"
#include "ops/map_view.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "pixel_kd";

constexpr std::array<std::pair<PixelKdReduction, std::string_view>, 4> kNames{{
    {PixelKdReduction::kMeanAll, "mean_all"},
    {PixelKdReduction::kPerPixel, "per_pixel"},
    {PixelKdReduction::kBatchMean, "batch_mean"},
    {PixelKdReduction::kSkdCrossEntropy, "skd_cross_entropy"},
}};

struct PixelKdNode final : ops::FusedLossNode {
  const char* name() const override { return kLoss; }
};

void check_labels(const Tensor& student, const Tensor& labels) {
  if (!labels.defined()) return;
  LIMBECK_CHECK(labels.dtype() == DType::kU8 || labels.dtype() == DType::kI32 || labels.dtype() == DType::kI64, kLoss,
                "labels of type {}, expected u8, i32 or i64", name_of(labels.dtype()));
  const Shape& s = student.shape();
  const Shape wanted = s.size() == 4 ? Shape{s[0], s[2], s[3]} : Shape{s[0]};
  LIMBECK_CHECK(labels.shape() == wanted, kLoss,
                "labels of shape {}, expected {} for maps of shape {}; resize the labels (nearest) to the maps",
                labels.shape(), wanted, s);
  LIMBECK_CHECK(labels.device() == student.device(), kLoss, "labels on {}, student on {}", labels.device().to_string(),
                student.device().to_string());
}

}  // namespace

std::string_view name_of(PixelKdReduction reduction) {
  for (const auto& [value, name] : kNames) {
    if (value == reduction) return name;
  }
  return "?";
}

PixelKdReduction parse_pixel_kd_reduction(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  fail<ConfigError>(kLoss, "reduction \"{}\", expected mean_all, per_pixel, batch_mean or skd_cross_entropy", text);
}

Tensor pixel_kd(const Tensor& student, const Tensor& teacher, const PixelKdOptions& options, const Tensor& labels) {
  check_pair(kLoss, student, teacher);
  check_temperature(kLoss, options.tau);
  LIMBECK_CHECK(student.ndim() == 4 || student.ndim() == 2, kLoss, "maps of shape {}, expected [N,C,H,W] or [N,C]",
                student.shape());
  check_labels(student, labels);
  const Tensor s = student.dense();
  const Tensor t = teacher.dense();
  const Tensor y = labels.defined() ? labels.dense() : labels;

  Tensor loss = Tensor::empty(Shape{}, ops::loss_dtype(s.dtype()), s.device());
  auto node = record<PixelKdNode>({&student});
  const Tensor gradient = node ? Tensor::empty_like(s) : Tensor();
  kPixelKd(s.device(), s.dtype(), ops::as_map(s.view()), ops::as_map(t.view()), ops::as_label_map(y.view()),
           loss.view(), ops::as_map(gradient.view()), options);
  if (node) {
    node->gradient = gradient;
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::distill
