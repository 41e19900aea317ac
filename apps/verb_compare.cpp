// The verb `compare`: two runs beside each other, to see what a change did or whether a run was repeated exactly.
#include <algorithm>
#include <cmath>

#include "apps/cli.h"
#include "apps/compare.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

struct Side {
  Config config;
  MetricLog log;
};

Side read_side(const fs::path& run) {
  for (const char* name : {"config.yaml", "metrics.jsonl"}) {
    if (!fs::exists(run / name)) fail<ConfigError>("compare", "{} is no run folder: {} is missing", run.string(), name);
  }
  return {Config::load(run / "config.yaml"), read_metrics(run / "metrics.jsonl")};
}

std::string text_of(const std::optional<std::string>& value) { return value.value_or("(not there)"); }

std::string first_line(const MetricComparison& metrics) {
  if (metrics.common_steps == 0) return "the runs have no logged step in common";
  if (!metrics.first) return fmt::format("equal at all {} steps that both logged", metrics.common_steps);
  const auto& d = *metrics.first;
  return fmt::format("first different number at step {}: {} is {} and {}", d.step, d.key, json_number(d.a),
                     json_number(d.b));
}

void print_text(const CompareArgs& args, const std::vector<ConfigDifference>& differences,
                const MetricComparison& metrics, const std::map<std::string, double>& a,
                const std::map<std::string, double>& b) {
  fmt::print("a: {}\nb: {}\n\nconfiguration: {}\n", args.a, args.b, differences.empty() ? "equal" : "");
  for (const auto& d : differences) fmt::print("  {}: {} -> {}\n", d.key, text_of(d.a), text_of(d.b));
  fmt::print("\nmetrics: {}\n\nlast values:\n", first_line(metrics));
  std::size_t width = 4;
  for (const auto& [key, value] : a) width = std::max(width, key.size());
  fmt::print("  {:<{}}  {:>12}  {:>12}  {:>12}\n", "", width, "a", "b", "b - a");
  for (const auto& [key, value] : a) {
    const auto other = b.find(key);
    if (other == b.end() || key.starts_with("weight/")) continue;
    fmt::print("  {:<{}}  {:>12.6g}  {:>12.6g}  {:>+12.6g}\n", key, width, value, other->second, other->second - value);
  }
}

void print_json(const CompareArgs& args, const std::vector<ConfigDifference>& differences,
                const MetricComparison& metrics, const std::map<std::string, double>& a,
                const std::map<std::string, double>& b) {
  std::vector<std::string> list;
  for (const auto& d : differences) {
    JsonObject o;
    o.add("key", d.key);
    if (d.a) o.add("a", *d.a);
    if (d.b) o.add("b", *d.b);
    list.push_back(o.str());
  }
  JsonObject last;
  for (const auto& [key, value] : a) {
    const auto other = b.find(key);
    if (other != b.end()) last.add(key, JsonObject().add("a", value).add("b", other->second));
  }
  JsonObject result;
  result.add("a", args.a)
      .add("b", args.b)
      .add_raw("config", json_array(list))
      .add("common_steps", metrics.common_steps);
  if (metrics.first) {
    const auto& d = *metrics.first;
    result.add("first_difference", JsonObject().add("step", d.step).add("key", d.key).add("a", d.a).add("b", d.b));
  }
  result.add("last", last);
  fmt::print("{}\n", result.str());
}

}  // namespace

int run_compare(const CompareArgs& args) {
  const Side a = read_side(args.a);
  const Side b = read_side(args.b);
  const auto differences = config_differences(a.config, b.config);
  const auto metrics = compare_metrics(a.log, b.log);
  (args.json ? print_json : print_text)(args, differences, metrics, last_values(a.log), last_values(b.log));
  return 0;
}

}  // namespace limbeck::apps
