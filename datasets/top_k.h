// What this is: classification scores over a whole data set: how often the right class is first, or among the first k.
// What it is not: scores of masks (metrics.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace limbeck::datasets {

class TopK {
 public:
  /// `k` is lowered to the number of classes.
  explicit TopK(std::int64_t classes, std::int64_t k = 5);

  /// Counts a batch. A class is among the first k when fewer than k others score higher; classes with the same score
  /// count as higher if their number is lower, so that a constant network does not look perfect.
  /// Shapes:  logits f32 [N,K]; labels i64 [N]
  /// Throws:  Error when the shapes do not fit; DataError for a label that is no class.
  void update(const Tensor& logits, const Tensor& labels);

  [[nodiscard]] std::int64_t k() const noexcept { return k_; }
  [[nodiscard]] std::int64_t samples() const noexcept { return samples_; }
  [[nodiscard]] double top1() const noexcept;  ///< in [0, 1]; 0 without samples
  [[nodiscard]] double topk() const noexcept;
  /// Share of the samples of each class that are right; NaN for a class without samples.
  [[nodiscard]] std::vector<double> class_accuracy() const;

 private:
  std::int64_t classes_, k_;
  std::int64_t samples_ = 0, first_ = 0, among_ = 0;
  std::vector<std::int64_t> class_samples_, class_right_;
};

/// "top-1 76.13  top-5 92.86 (50000 pictures)"
[[nodiscard]] std::string summary_line(const TopK& score);

}  // namespace limbeck::datasets
