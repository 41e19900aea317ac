// What this is: how the weight of a loss term changes during training.
// Read next: distill/distiller.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"

namespace limbeck::distill {

/// Weight of a term as a function of the training progress.
/// Formula:  constant   w
///           linear     from + (to - from) * step / total
///           epochs     from + (to - from) * e / E, e = the epoch that the step belongs to, E = the number of epochs: constant
///                      within an epoch, and never quite `to` (adaptive loss weighting: from 0 to w, and from w to 0)
///           until      w while step < end, then 0
///           steps      the value of the last (step, value) pair whose step has been reached; before the first: w
/// Shapes:   scalar; `step` counts optimizer steps from 0.
/// Throws:   ConfigError for a negative weight (a loss that is maximised is a mistake) or unordered steps.
class WeightSchedule {
 public:
  /// Constant weight.
  explicit WeightSchedule(double weight = 1.0);
  [[nodiscard]] static WeightSchedule linear(double from, double to);
  [[nodiscard]] static WeightSchedule epochs(double from, double to);
  [[nodiscard]] static WeightSchedule until(double weight, std::int64_t end);
  [[nodiscard]] static WeightSchedule steps(double first, std::vector<std::pair<std::int64_t, double>> changes);

  /// Reads `key` of `section`: a number, or a mapping such as {from: 0, to: 3}, {from: 0, to: 9500, per: epoch},
  /// {value: 3, until: 20000}, {value: 3, at: [1000, 2000], to: [1, 0]}. `fallback` when absent.
  [[nodiscard]] static WeightSchedule from_config(const Config& section, std::string_view key, double fallback);

  /// `steps_per_epoch` may be a fraction (accumulated batches); only schedules that need_epochs() look at it.
  [[nodiscard]] double at(std::int64_t step, std::int64_t total, double steps_per_epoch = 0) const noexcept;
  /// True if at() is the same at every step.
  [[nodiscard]] bool is_constant() const noexcept { return kind_ == Kind::kConstant; }
  [[nodiscard]] bool needs_epochs() const noexcept { return kind_ == Kind::kEpochs; }
  /// "3", "linear 0 -> 3", "0 -> 3 by epochs", "3, 0 from step 20000", for logs and run.json.
  [[nodiscard]] std::string describe() const;

 private:
  enum class Kind : std::uint8_t { kConstant, kLinear, kEpochs, kSteps };
  Kind kind_ = Kind::kConstant;
  double from_ = 1.0;
  double to_ = 1.0;
  std::vector<std::pair<std::int64_t, double>> changes_;  // ascending steps
};

}  // namespace limbeck::distill
