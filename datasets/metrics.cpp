#include "datasets/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "core/error.h"
#include "core/parallel.h"

namespace limbeck::datasets {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? kNone : static_cast<double>(part) / static_cast<double>(whole);
}

/// Mean of the entries that exist; 0 when none does.
double mean_of(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    sum += v;
    ++count;
  }
  return count == 0 ? 0 : sum / count;
}

/// Counts pixels [begin, end) into `counts` (K*K) and returns the number of ignored ones.
template <class T, class P>
std::uint64_t count_range(const T* truth, const P* prediction, std::int64_t begin, std::int64_t end, std::int64_t k,
                          std::vector<std::uint64_t>& counts) {
  std::uint64_t ignored = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto t = static_cast<std::int64_t>(truth[i]);
    if (t == kIgnoreId) {
      ++ignored;
      continue;
    }
    const auto p = static_cast<std::int64_t>(prediction[i]);
    if (t < 0 || t >= k || p < 0 || p >= k) [[unlikely]] {
      const bool bad_truth = t < 0 || t >= k;
      fail<DataError>("metrics", "{} id {} at element {}, expected 0..{}{}", bad_truth ? "truth" : "predicted",
                      bad_truth ? t : p, i, k - 1,
                      bad_truth ? " or 255 (ignore)" : "; predictions are the argmax of the logits over the classes");
    }
    ++counts[static_cast<std::size_t>(t * k + p)];
  }
  return ignored;
}

template <class F>
void visit_ids(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kU8: f(std::uint8_t{}); return;
    case DType::kI32: f(std::int32_t{}); return;
    case DType::kI64: f(std::int64_t{}); return;
    default: fail("metrics", "ids of type {}, expected u8, i32 or i64", name_of(dtype));
  }
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(std::int64_t classes) : classes_(classes) {
  LIMBECK_CHECK(classes >= 1 && classes <= 255, "metrics", "{} classes, expected 1..255", classes);
  counts_.assign(static_cast<std::size_t>(classes * classes), 0);
}

std::uint64_t ConfusionMatrix::at(std::int64_t truth, std::int64_t prediction) const {
  LIMBECK_CHECK(truth >= 0 && truth < classes_ && prediction >= 0 && prediction < classes_, "metrics",
                "entry ({}, {}) of a {} x {} matrix", truth, prediction, classes_, classes_);
  return counts_[static_cast<std::size_t>(truth * classes_ + prediction)];
}

void ConfusionMatrix::update(const Tensor& truth_in, const Tensor& prediction_in) {
  LIMBECK_CHECK(truth_in.shape() == prediction_in.shape(), "metrics",
                "truth has shape {}, prediction {}; resize the logits to the label size before argmax",
                truth_in.shape(), prediction_in.shape());
  const Tensor truth = truth_in.dense();
  const Tensor prediction = prediction_in.dense();
  // Collected apart and added at the end, so that an id out of range leaves the matrix as it was.
  std::vector<std::uint64_t> sum(counts_.size(), 0);
  std::uint64_t sum_ignored = 0;
  std::mutex mutex;  // integers: the order in which the parts are added does not matter
  visit_ids(truth.dtype(), [&](auto t) {
    visit_ids(prediction.dtype(), [&](auto p) {
      const auto* truth_ids = truth.data<decltype(t)>();
      const auto* predicted_ids = prediction.data<decltype(p)>();
      parallel_for(truth.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::uint64_t> part(counts_.size(), 0);
        const std::uint64_t ignored = count_range(truth_ids, predicted_ids, begin, end, classes_, part);
        const std::lock_guard lock(mutex);
        std::transform(sum.begin(), sum.end(), part.begin(), sum.begin(), std::plus<>());
        sum_ignored += ignored;
      });
    });
  });
  std::transform(counts_.begin(), counts_.end(), sum.begin(), counts_.begin(), std::plus<>());
  ignored_ += sum_ignored;
}

void ConfusionMatrix::update(const Mask& truth, const Mask& prediction) {
  LIMBECK_CHECK(truth.h == prediction.h && truth.w == prediction.w, "metrics", "truth is {}x{}, prediction {}x{}",
                truth.w, truth.h, prediction.w, prediction.h);
  std::vector<std::uint64_t> part(counts_.size(), 0);
  const std::uint64_t ignored = count_range(truth.ids.data(), prediction.ids.data(), 0,
                                            static_cast<std::int64_t>(truth.ids.size()), classes_, part);
  std::transform(counts_.begin(), counts_.end(), part.begin(), counts_.begin(), std::plus<>());
  ignored_ += ignored;
}

void ConfusionMatrix::merge(const ConfusionMatrix& other) {
  LIMBECK_CHECK(classes_ == other.classes_, "metrics", "merge of {} and {} classes", classes_, other.classes_);
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
  ignored_ += other.ignored_;
}

Tensor ConfusionMatrix::to_tensor() const {
  Tensor out = Tensor::empty({classes_ * classes_ + 1}, DType::kI64);
  auto* p = out.data<std::int64_t>();
  for (std::size_t i = 0; i < counts_.size(); ++i) p[i] = static_cast<std::int64_t>(counts_[i]);
  p[counts_.size()] = static_cast<std::int64_t>(ignored_);
  return out;
}

ConfusionMatrix ConfusionMatrix::from_tensor(const Tensor& sums, std::int64_t classes) {
  ConfusionMatrix m(classes);
  LIMBECK_CHECK(sums.numel() == classes * classes + 1, "metrics", "{} sums for {} classes, expected {}", sums.numel(),
                classes, classes * classes + 1);
  const auto values = sums.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < m.counts_.size(); ++i) m.counts_[i] = static_cast<std::uint64_t>(values[i]);
  m.ignored_ = static_cast<std::uint64_t>(values.back());
  return m;
}

void ConfusionMatrix::reset() noexcept {
  std::fill(counts_.begin(), counts_.end(), 0);
  ignored_ = 0;
}

Metrics ConfusionMatrix::compute(AbsentClasses absent) const {
  Metrics m;
  m.ignored = ignored_;
  m.pixels = std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
  std::uint64_t right = 0;
  for (std::int64_t c = 0; c < classes_; ++c) {
    std::uint64_t truth = 0;
    std::uint64_t predicted = 0;
    for (std::int64_t o = 0; o < classes_; ++o) {
      truth += at(c, o);
      predicted += at(o, c);
    }
    const std::uint64_t hit = at(c, c);
    right += hit;
    const std::uint64_t either = truth + predicted - hit;
    const double iou = either == 0 && absent == AbsentClasses::kZero ? 0.0 : ratio(hit, either);
    m.iou.push_back(iou);
    m.class_accuracy.push_back(ratio(hit, truth));
    std::isnan(iou) ? ++m.classes_excluded : ++m.classes_averaged;
    if (truth > 0) m.weighted_iou += iou * static_cast<double>(truth) / static_cast<double>(m.pixels);
  }
  m.miou = mean_of(m.iou);
  m.mean_class_accuracy = mean_of(m.class_accuracy);
  m.pixel_accuracy = m.pixels == 0 ? 0 : ratio(right, m.pixels);
  return m;
}

std::string summary_line(const Metrics& m) {
  return fmt::format("mIoU {:.2f} ({} of {} classes)  pixAcc {:.2f}  mAcc {:.2f}  fwIoU {:.2f}", 100 * m.miou,
                     m.classes_averaged, m.classes_averaged + m.classes_excluded, 100 * m.pixel_accuracy,
                     100 * m.mean_class_accuracy, 100 * m.weighted_iou);
}

std::string metrics_table(const Metrics& m, const ConfusionMatrix& matrix, const ClassInfo& classes) {
  LIMBECK_CHECK(classes.count() == matrix.classes() && m.iou.size() == classes.names.size(), "metrics",
                "{} class names for {} classes", classes.count(), matrix.classes());
  std::size_t width = 5;
  for (const auto& name : classes.names) width = std::max(width, name.size());
  const auto percent = [](double v) { return std::isnan(v) ? std::string("-") : fmt::format("{:.2f}", 100 * v); };
  std::string text = fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}\n", "class", width, "IoU", "acc", "share");
  for (std::size_t k = 0; k < classes.names.size(); ++k) {
    const auto row = matrix.counts().subspan(k * classes.names.size(), classes.names.size());
    const std::uint64_t truth = std::accumulate(row.begin(), row.end(), std::uint64_t{0});
    text += fmt::format("{:<{}}  {:>6}  {:>6}  {:>6}\n", classes.names[k], width, percent(m.iou[k]),
                        percent(m.class_accuracy[k]), percent(ratio(truth, m.pixels)));
  }
  return text + summary_line(m) + "\n";
}

}  // namespace limbeck::datasets
