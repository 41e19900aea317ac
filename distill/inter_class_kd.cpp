// Glue of the inter-class similarity loss: checks, dispatch, node; the similarity matrix on its own.
#include "distill/inter_class_kd.h"

#include <utility>

#include "distill/check_pair.h"
#include "distill/inter_class_kd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

constexpr std::pair<IcsdMode, std::string_view> kNames[] = {
    {IcsdMode::kPaperNorm, "paper_norm"}, {IcsdMode::kRowNorm, "row_norm"},
    {IcsdMode::kPaperRaw, "paper_raw"},   {IcsdMode::kImageRaw, "image_raw"},
    {IcsdMode::kImageNorm, "image_norm"}, {IcsdMode::kOfficialCode, "official_code"},
};

}  // namespace

std::string_view name_of(IcsdMode mode) noexcept {
  for (const auto& [value, name] : kNames) {
    if (value == mode) return name;
  }
  return "?";
}

IcsdMode parse_icsd_mode(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  fail<ConfigError>(
      "icsd", "mode \"{}\", expected paper_norm, row_norm, paper_raw, image_raw, image_norm or official_code", text);
}

Tensor icsd(const Tensor& student, const Tensor& teacher, const IcsdOptions& options) {
  constexpr const char* kLoss = "icsd";
  check_pair_kinds(kLoss, student, teacher);
  check_temperature(kLoss, options.tau);
  const Shape& s = student.shape();
  const Shape& t = teacher.shape();
  LIMBECK_CHECK(s.size() == 4 && t.size() == 4 && s[0] == t[0] && s[1] == t[1], kLoss,
                "student of shape {}, teacher of shape {}, expected [N,C,H,W] of equal N and C", s, t);
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& sd, const Tensor& td, const Tensor& loss, const Tensor& gradient) {
                         kIcsd(sd.device(), sd.dtype(), sd.view(), td.view(), loss.view(), gradient.view(), options);
                       });
}

Tensor inter_class_similarity(const Tensor& logits, double tau) {
  constexpr const char* kName = "inter_class_similarity";
  ops::check_float(kName, logits);
  check_temperature(kName, tau);
  LIMBECK_CHECK(logits.ndim() == 4 && logits.numel() > 0, kName, "logits of shape {}, expected [N,C,H,W], not empty",
                logits.shape());
  const Tensor x = logits.detach().dense();
  Tensor matrix = Tensor::empty({x.size(1), x.size(1)}, ops::loss_dtype(x.dtype()), x.device());
  kInterClassSimilarity(x.device(), x.dtype(), x.view(), tau, matrix.view());
  return matrix;
}

}  // namespace limbeck::distill
