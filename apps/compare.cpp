#include "apps/compare.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/file_io.h"

namespace limbeck::apps {
namespace {

void flatten_into(const Config& config, const std::string& prefix, std::map<std::string, std::string>& out) {
  for (const auto& key : config.keys()) {
    const std::string path = prefix.empty() ? key : prefix + "." + key;
    if (config.is_section(key)) {
      flatten_into(config.section(key), path, out);
      continue;
    }
    try {
      const auto values = config.find<std::vector<std::string>>(key);
      out[path] = values ? fmt::format("{}", fmt::join(*values, ", ")) : "null";
    } catch (const ConfigError&) {  // not a list of values, so one of sections
      std::size_t i = 0;
      for (const Config& entry : config.sections(key)) flatten_into(entry, fmt::format("{}.{}", path, i++), out);
    }
  }
}

bool is_clock(const std::string& key) { return key == "steps_per_second" || key == "data_share"; }

double number_of(const nlohmann::json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

}  // namespace

std::map<std::string, std::string> flatten(const Config& config) {
  std::map<std::string, std::string> out;
  flatten_into(config, "", out);
  return out;
}

std::vector<ConfigDifference> config_differences(const Config& a, const Config& b) {
  const auto left = flatten(a);
  const auto right = flatten(b);
  std::set<std::string> keys;
  for (const auto& [key, value] : left) keys.insert(key);
  for (const auto& [key, value] : right) keys.insert(key);
  keys.erase("out");
  std::vector<ConfigDifference> differences;
  for (const auto& key : keys) {
    const auto l = left.find(key);
    const auto r = right.find(key);
    if (l != left.end() && r != right.end() && l->second == r->second) continue;
    ConfigDifference d{key, std::nullopt, std::nullopt};
    if (l != left.end()) d.a = l->second;
    if (r != right.end()) d.b = r->second;
    differences.push_back(std::move(d));
  }
  return differences;
}

MetricLog read_metrics(const std::filesystem::path& file) {
  MetricLog log;
  std::istringstream lines(read_file(file));
  std::string line;
  while (std::getline(lines, line)) {
    const auto o = nlohmann::json::parse(line, nullptr, false);
    if (!o.is_object() || !o.contains("iter") || !o["iter"].is_number()) continue;
    auto& values = log[o["iter"].get<std::int64_t>()];
    for (const auto& [key, value] : o.items()) {
      if (key == "iter") continue;
      if (value.is_array()) {
        for (std::size_t i = 0; i < value.size(); ++i) values[fmt::format("{}.{}", key, i)] = number_of(value[i]);
      } else if (value.is_number() || value.is_null()) {
        values[key] = number_of(value);
      }
    }
  }
  return log;
}

MetricComparison compare_metrics(const MetricLog& a, const MetricLog& b) {
  MetricComparison result;
  for (const auto& [step, values] : a) {
    const auto other = b.find(step);
    if (other == b.end()) continue;
    ++result.common_steps;
    for (const auto& [key, value] : values) {
      const auto found = other->second.find(key);
      if (result.first || is_clock(key) || found == other->second.end() || same(value, found->second)) continue;
      result.first = Divergence{step, key, value, found->second};
    }
  }
  return result;
}

std::map<std::string, double> last_values(const MetricLog& log) {
  std::map<std::string, double> last;
  for (const auto& [step, values] : log) {
    for (const auto& [key, value] : values) {
      if (!is_clock(key)) last[key] = value;
    }
  }
  return last;
}

}  // namespace limbeck::apps
