// What this is: what two run folders have in common and where they differ: configuration, results, and the first step whose
//   logged numbers are not the same.
// Read next: verb_compare.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"

namespace limbeck::apps {

/// Every value of a configuration by its full key: "train.lr" -> "0.1", "distill.terms.0.loss" -> "pixel_kd".
[[nodiscard]] std::map<std::string, std::string> flatten(const Config& config);

struct ConfigDifference {
  std::string key;
  std::optional<std::string> a, b;  ///< nothing where the run does not have the key
};
/// In the order of the keys. Output folders are left out: they always differ.
[[nodiscard]] std::vector<ConfigDifference> config_differences(const Config& a, const Config& b);

/// The numbers of metrics.jsonl: step -> key -> value. Lists become "key.0", "key.1", ... Torn lines are left out.
using MetricLog = std::map<std::int64_t, std::map<std::string, double>>;
/// Throws Error when the file cannot be read.
[[nodiscard]] MetricLog read_metrics(const std::filesystem::path& file);

struct Divergence {
  std::int64_t step = 0;
  std::string key;
  double a = 0, b = 0;
};
struct MetricComparison {
  std::int64_t common_steps = 0;    ///< steps that both runs logged
  std::optional<Divergence> first;  ///< nothing: equal at all of them
};
/// Speed and waiting times do not count: the clock is never the same. NaN equals NaN.
[[nodiscard]] MetricComparison compare_metrics(const MetricLog& a, const MetricLog& b);

/// The last value of every key; for loss curves and validations.
[[nodiscard]] std::map<std::string, double> last_values(const MetricLog& log);

}  // namespace limbeck::apps
