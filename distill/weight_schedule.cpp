#include "distill/weight_schedule.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/log.h"

namespace limbeck::distill {
namespace {

constexpr double kLargest = 1e12;

double checked(double weight) {
  if (!(weight >= 0)) fail<ConfigError>("weight", "got {}, expected a weight >= 0", weight);
  return weight;
}

}  // namespace

WeightSchedule::WeightSchedule(double weight) : from_(checked(weight)), to_(weight) {}

WeightSchedule WeightSchedule::linear(double from, double to) {
  WeightSchedule s(from);
  s.kind_ = Kind::kLinear;
  s.to_ = checked(to);
  return s;
}

WeightSchedule WeightSchedule::epochs(double from, double to) {
  WeightSchedule s = linear(from, to);
  s.kind_ = Kind::kEpochs;
  return s;
}

WeightSchedule WeightSchedule::until(double weight, std::int64_t end) { return steps(weight, {{end, 0.0}}); }

WeightSchedule WeightSchedule::steps(double first, std::vector<std::pair<std::int64_t, double>> changes) {
  WeightSchedule s(first);
  s.kind_ = Kind::kSteps;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    checked(changes[i].second);
    if (i > 0 && changes[i].first <= changes[i - 1].first) {
      fail<ConfigError>("weight", "step {} after step {}: the steps of a weight must ascend", changes[i].first,
                        changes[i - 1].first);
    }
  }
  s.changes_ = std::move(changes);
  return s;
}

WeightSchedule WeightSchedule::from_config(const Config& section, std::string_view key, double fallback) {
  if (!section.is_section(key)) return WeightSchedule(section.get_in_range<double>(key, fallback, 0.0, kLargest));
  const Config map = section.section(key);
  if (map.has("from")) {
    const bool by_epoch = map.choice("per", "step", {"step", "epoch"}) == "epoch";
    const auto from = map.get_in_range<double>("from", 0.0, kLargest);
    const auto to = map.get_in_range<double>("to", 0.0, kLargest);
    return by_epoch ? epochs(from, to) : linear(from, to);
  }
  const double value = map.get_in_range<double>("value", fallback, 0.0, kLargest);
  if (map.has("until")) return until(value, map.get<std::int64_t>("until"));
  const auto at = map.get<std::vector<std::int64_t>>("at");
  const auto to = map.get<std::vector<double>>("to");
  if (at.size() != to.size()) map.reject("at", fmt::format("{} steps but {} values in 'to'", at.size(), to.size()));
  if (std::any_of(to.begin(), to.end(), [](double v) { return v < 0 || v > kLargest; })) {
    map.reject("to", fmt::format("got [{}], expected weights >= 0", fmt::join(to, ", ")));
  }
  if (std::adjacent_find(at.begin(), at.end(), std::greater_equal<>()) != at.end()) {
    map.reject("at", fmt::format("got [{}], expected steps that ascend", fmt::join(at, ", ")));
  }
  std::vector<std::pair<std::int64_t, double>> changes;
  for (std::size_t i = 0; i < at.size(); ++i) changes.emplace_back(at[i], to[i]);
  return steps(value, std::move(changes));
}

double WeightSchedule::at(std::int64_t step, std::int64_t total, double steps_per_epoch) const noexcept {
  constexpr double kRounding = 1e-9;  // of the division of two whole numbers
  const double epoch_length = std::max(steps_per_epoch, 1.0);
  switch (kind_) {
    case Kind::kConstant: return from_;
    case Kind::kLinear:
      return from_ + (to_ - from_) * static_cast<double>(std::clamp<std::int64_t>(step, 0, total)) /
                         static_cast<double>(std::max<std::int64_t>(total, 1));
    case Kind::kEpochs: {
      const double count = std::max(std::ceil(static_cast<double>(total) / epoch_length - kRounding), 1.0);
      const double epoch = std::floor(static_cast<double>(std::max<std::int64_t>(step, 0)) / epoch_length + kRounding);
      return from_ + (to_ - from_) * std::min(epoch, count - 1) / count;
    }
    case Kind::kSteps: break;
  }
  double weight = from_;
  for (const auto& [start, value] : changes_) {
    if (step >= start) weight = value;
  }
  return weight;
}

std::string WeightSchedule::describe() const {
  switch (kind_) {
    case Kind::kConstant: return format_short(from_);
    case Kind::kLinear: return fmt::format("linear {} -> {}", format_short(from_), format_short(to_));
    case Kind::kEpochs: return fmt::format("{} -> {} by epochs", format_short(from_), format_short(to_));
    case Kind::kSteps: break;
  }
  std::string text = format_short(from_);
  for (const auto& [start, value] : changes_) text += fmt::format(", {} from step {}", format_short(value), start);
  return text;
}

}  // namespace limbeck::distill
