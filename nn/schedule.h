// What this is: learning rate as a pure function of the step number, so that resuming needs nothing but the step.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace limbeck::nn {

enum class ScheduleKind : std::uint8_t { kConstant, kPoly, kCosine, kStep };

/// Reads "constant", "poly", "cosine" or "step".
/// Shapes: none
/// Throws: ConfigError listing the four.
[[nodiscard]] ScheduleKind parse_schedule_kind(std::string_view text);

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kPoly;
  double base_lr = 0.01;
  std::int64_t total_steps = 1;               ///< poly, cosine: the rate is min_lr from here on
  double power = 0.9;                         ///< poly
  double min_lr = 0.0;                        ///< poly, cosine
  std::vector<std::int64_t> milestones = {};  ///< step: ascending; the rate is multiplied by gamma at each
  double gamma = 0.1;                         ///< step
  std::int64_t warmup_steps = 0;
  double warmup_ratio = 1e-3;  ///< factor of step 0
};

/// Learning rate of step `step`, counted from 0.
/// Formula:  p = min(step / total_steps, 1)
///           poly     (base - min) * (1 - p)^power + min
///           cosine   (base - min) * (1 + cos(pi p)) / 2 + min
///           step     base * gamma^(number of milestones <= step)
///           warm-up  while step < warmup_steps: the above * (ratio + (1 - ratio) * step / warmup_steps)
/// Shapes:   none
/// Throws:   ConfigError for total_steps < 1, negative rates, unordered milestones.
/// Source:   poly: DeepLab (min_lr 0), mmsegmentation (min_lr 1e-4); linear warm-up on top: mmsegmentation, detectron2.
[[nodiscard]] double learning_rate(const ScheduleOptions& options, std::int64_t step);

}  // namespace limbeck::nn
