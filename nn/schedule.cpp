// What this is: the formulas of nn/schedule.h.
#include "nn/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace limbeck::nn {
namespace {

void check(const ScheduleOptions& o, std::int64_t step) {
  const auto require = [](bool ok, const std::string& text) {
    if (!ok) fail<ConfigError>("schedule", "{}", text);
  };
  require(step >= 0, fmt::format("step {}, expected step >= 0", step));
  require(o.base_lr >= 0 && o.min_lr >= 0, fmt::format("base_lr {} and min_lr {}, expected >= 0", o.base_lr, o.min_lr));
  require(o.total_steps >= 1, fmt::format("total_steps {}, expected >= 1", o.total_steps));
  require(o.warmup_steps >= 0 && o.warmup_ratio >= 0 && o.warmup_ratio <= 1,
          fmt::format("warmup_steps {} and warmup_ratio {}, expected >= 0 and within [0, 1]", o.warmup_steps,
                      o.warmup_ratio));
  require(std::is_sorted(o.milestones.begin(), o.milestones.end()), "milestones must ascend");
}

double without_warmup(const ScheduleOptions& o, std::int64_t step) {
  const double p = std::min(1.0, static_cast<double>(step) / static_cast<double>(o.total_steps));
  switch (o.kind) {
    case ScheduleKind::kConstant: return o.base_lr;
    case ScheduleKind::kPoly: return (o.base_lr - o.min_lr) * std::pow(1.0 - p, o.power) + o.min_lr;
    case ScheduleKind::kCosine: return (o.base_lr - o.min_lr) * 0.5 * (1.0 + std::cos(std::numbers::pi * p)) + o.min_lr;
    case ScheduleKind::kStep: {
      const auto passed = std::upper_bound(o.milestones.begin(), o.milestones.end(), step) - o.milestones.begin();
      return o.base_lr * std::pow(o.gamma, static_cast<double>(passed));
    }
  }
  return o.base_lr;
}

}  // namespace

ScheduleKind parse_schedule_kind(std::string_view text) {
  if (text == "constant") return ScheduleKind::kConstant;
  if (text == "poly") return ScheduleKind::kPoly;
  if (text == "cosine") return ScheduleKind::kCosine;
  if (text == "step") return ScheduleKind::kStep;
  fail<ConfigError>("schedule", "unknown schedule '{}'; choose constant, poly, cosine or step", text);
}

double learning_rate(const ScheduleOptions& o, std::int64_t step) {
  check(o, step);
  double lr = without_warmup(o, step);
  if (step < o.warmup_steps) {
    const double part = static_cast<double>(step) / static_cast<double>(o.warmup_steps);
    lr *= o.warmup_ratio + (1.0 - o.warmup_ratio) * part;
  }
  return lr;
}

}  // namespace limbeck::nn
