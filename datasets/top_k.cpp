#include "datasets/top_k.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/log.h"

namespace limbeck::datasets {
namespace {

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

TopK::TopK(std::int64_t classes, std::int64_t k) : classes_(classes), k_(std::min(k, classes)) {
  LIMBECK_CHECK(classes >= 1 && k >= 1, "top-k", "{} classes and k = {}, expected at least 1 of both", classes, k);
  class_samples_.assign(static_cast<std::size_t>(classes), 0);
  class_right_ = class_samples_;
}

void TopK::update(const Tensor& logits_in, const Tensor& labels_in) {
  LIMBECK_CHECK(logits_in.ndim() == 2 && logits_in.size(1) == classes_ && labels_in.shape() == Shape{logits_in.size(0)},
                "top-k", "logits of shape {} with labels {}, expected [N, {}] with [N]", logits_in.shape(),
                labels_in.shape(), classes_);
  const Tensor logits = logits_in.dense();
  const Tensor labels = labels_in.dense();
  const auto* scores = logits.data<float>();
  const auto* truth = labels.data<std::int64_t>();
  for (std::int64_t n = 0; n < logits.size(0); ++n, scores += classes_) {
    const std::int64_t label = truth[n];
    if (label < 0 || label >= classes_) {
      fail<DataError>("top-k", "label {} at element {}, expected 0..{}", label, n, classes_ - 1);
    }
    std::int64_t higher = 0;
    for (std::int64_t c = 0; c < classes_; ++c) {
      // Written so that a NaN never counts as right.
      const bool lower = scores[c] < scores[label] || (scores[c] == scores[label] && c >= label);
      higher += lower ? 0 : 1;
    }
    ++samples_;
    ++class_samples_[static_cast<std::size_t>(label)];
    among_ += higher < k_ ? 1 : 0;
    if (higher > 0) continue;
    ++first_;
    ++class_right_[static_cast<std::size_t>(label)];
  }
}

double TopK::top1() const noexcept { return ratio(first_, samples_); }
double TopK::topk() const noexcept { return ratio(among_, samples_); }

std::vector<double> TopK::class_accuracy() const {
  std::vector<double> out(class_samples_.size(), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t c = 0; c < out.size(); ++c) {
    if (class_samples_[c] > 0) out[c] = ratio(class_right_[c], class_samples_[c]);
  }
  return out;
}

std::string summary_line(const TopK& s) {
  return fmt::format("top-1 {:.2f}  top-{} {:.2f} ({})", 100 * s.top1(), s.k(), 100 * s.topk(),
                     format_count(s.samples(), "picture"));
}

}  // namespace limbeck::datasets
