// What this is: segmentation scores from one confusion matrix over a whole data set.
// What it is not: per-batch averages; the mean of batch scores is not the score of the set.
//
// Note [absent classes]
//   A class that occurs neither in the truth nor in the predictions has no IoU (0 / 0). It is left out of the means,
//   and Metrics::classes_averaged says how many were averaged. NaN never reaches a mean, so "is this the best score so
//   far" always has an answer. The code of channel-wise distillation divides by max(1, union) instead, so that such a class
//   has IoU 0 and lowers the mean: AbsentClasses::kZero. On a whole split all classes occur, and both are the same.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "datasets/dataset.h"

namespace limbeck::datasets {

/// What a class that occurs nowhere does to the mIoU.
enum class AbsentClasses : std::uint8_t {
  kSkip,  ///< nothing
  kZero   ///< counts as 0
};

/// Scores in [0, 1]; printing multiplies by 100. Entries of absent classes in the vectors are NaN.
struct Metrics {
  double miou = 0;                     ///< mean of iou over the classes that occur (or count as 0)
  double pixel_accuracy = 0;           ///< share of labelled pixels that are right (aAcc)
  double mean_class_accuracy = 0;      ///< mean of class_accuracy (mAcc)
  double weighted_iou = 0;             ///< iou weighted by the class's share of the truth (fwIoU)
  std::vector<double> iou;             ///< tp / (tp + fp + fn)
  std::vector<double> class_accuracy;  ///< tp / (tp + fn); NaN where the truth has none
  std::int64_t classes_averaged = 0;   ///< classes in miou
  std::int64_t classes_excluded = 0;   ///< not in miou: absent from truth and prediction
  std::uint64_t pixels = 0;            ///< labelled pixels
  std::uint64_t ignored = 0;           ///< pixels with kIgnoreId in the truth
};

/// counts[truth * K + prediction] in 64 bits: the training set of Cityscapes alone has 6.2e9 pixels.
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(std::int64_t classes);

  [[nodiscard]] std::int64_t classes() const noexcept { return classes_; }
  [[nodiscard]] std::uint64_t at(std::int64_t truth, std::int64_t prediction) const;
  [[nodiscard]] std::uint64_t ignored() const noexcept { return ignored_; }
  [[nodiscard]] std::span<const std::uint64_t> counts() const noexcept { return counts_; }

  /// Counts every pixel whose truth is not kIgnoreId. Runs on all cores.
  /// Shapes:  both u8, i32 or i64 of equal shape, e.g. [N,H,W].
  /// Throws:  Error when the shapes differ; DataError naming the position when an id is not in 0..K-1.
  void update(const Tensor& truth, const Tensor& prediction);
  void update(const Mask& truth, const Mask& prediction);

  /// Adds another matrix (of another thread or rank). Throws Error when the class counts differ.
  void merge(const ConfusionMatrix& other);
  /// Counts and ignored pixels as i64 [K*K + 1], for summing over ranks, and back.
  [[nodiscard]] Tensor to_tensor() const;
  [[nodiscard]] static ConfusionMatrix from_tensor(const Tensor& sums, std::int64_t classes);

  /// `absent` changes iou, miou and the two counts of classes.
  [[nodiscard]] Metrics compute(AbsentClasses absent = AbsentClasses::kSkip) const;
  void reset() noexcept;

 private:
  std::int64_t classes_;
  std::vector<std::uint64_t> counts_;
  std::uint64_t ignored_ = 0;
};

/// "mIoU 68.46 (11 of 11 classes)  pixAcc 92.10  mAcc 76.02  fwIoU 85.77"
[[nodiscard]] std::string summary_line(const Metrics& metrics);

/// Table with one line per class (IoU, accuracy, share of the truth), then the summary line. Percent, two decimals.
[[nodiscard]] std::string metrics_table(const Metrics& metrics, const ConfusionMatrix& matrix,
                                        const ClassInfo& classes);

}  // namespace limbeck::datasets
