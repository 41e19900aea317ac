#include "apps/sweep.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "apps/cli.h"
#include "apps/presets.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/nearest_word.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSweepKeys[] = {"base", "common", "seeds", "splits", "best", "baseline", "methods"};

bool is_sweep_override(std::string_view assignment) {
  const std::string_view word = assignment.substr(0, assignment.find_first_of(".="));
  return std::find(std::begin(kSweepKeys), std::end(kSweepKeys), word) != std::end(kSweepKeys);
}

Config read_base(const Config& sweep, const fs::path& folder) {
  // Seed and folder of a run are the sweep's business.
  if (sweep.is_section("base")) return sweep.section("base").copy({"seed", "out"});
  const auto base = sweep.get<std::string>("base");
  std::vector<std::string> names;
  for (const auto& preset : presets()) {
    if (base == preset.name) return Config::parse(preset.text, base).copy({"seed", "out"});
    names.emplace_back(preset.name);
  }
  const fs::path file = folder / base;
  if (fs::exists(file)) return Config::load(file).copy({"seed", "out"});
  const std::string near = nearest_word(base, names);
  sweep.reject("base",
               fmt::format("'{}' is neither a preset nor a file in {}{}", base, folder.empty() ? "." : folder.string(),
                           near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
}

/// As merge(); a length given as steps replaces one given as epochs, and the other way round.
void lay_over(Config& config, const Config& top) {
  const bool steps = top.has("train.steps");
  const bool epochs = top.has("train.epochs");
  config.merge(top);
  if (steps && !epochs) config.override_with("train.epochs=0");
  if (epochs && !steps) config.override_with("train.steps=0");
}

std::string read_name(const Config& method, const std::set<std::string>& used) {
  const auto name = method.get<std::string>("name");
  const bool plain = !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == '+';
  });
  if (!plain) method.reject("name", "expected letters, digits, '_', '-', '+' and '.': it becomes the name of a folder");
  if (used.contains(name)) method.reject("name", fmt::format("a second method '{}'", name));
  return name;
}

SweepMethod read_method(const Config& section, const Config& base, const std::vector<std::string>& overrides,
                        std::string name) {
  SweepMethod method{std::move(name), base.copy({"distill"}), section.is_section("distill")};
  lay_over(method.config, section.copy({"name", "terms"}));
  if (section.has("terms")) {
    const auto keys = section.keys();
    std::vector<std::string_view> others(keys.begin(), keys.end());
    std::erase(others, "terms");
    method.config.section("distill").merge(section.copy(others));
    method.distillation = true;
  }
  if (!method.distillation) method.config = method.config.copy({"teacher"});
  std::vector<std::string> mine;
  for (const auto& text : overrides) {
    // What is said about the teacher does not concern a student that trains alone.
    if (method.distillation || !(text.starts_with("teacher.") || text.starts_with("distill."))) mine.push_back(text);
  }
  apply_overrides(method.config, mine);
  return method;
}

double number_or_nan(const nlohmann::json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

JsonObject score_json(const SplitScore& score) {
  JsonObject o;
  o.add("split", score.split)
      .add("weights", score.weights)
      .add("miou", score.miou)
      .add("pixel_acc", score.pixel_accuracy);
  o.add("iou", std::span<const double>(score.iou)).add("images", score.images).add("protocol", score.protocol);
  return o;
}

JsonObject record_json(const RunRecord& r) {
  JsonObject o;
  o.add("method", r.method).add("seed", r.seed).add("state", r.state);
  if (r.state == "failed") o.add("reason", r.reason).add("exit_code", r.exit_code);
  o.add("steps", r.steps)
      .add("seconds", r.seconds)
      .add("seconds_per_step", r.seconds_per_step)
      .add("peak_bytes", r.peak_bytes);
  o.add("objective", std::span<const std::string>(r.objective));
  std::vector<std::string> scores;
  for (const auto& s : r.scores) scores.push_back(score_json(s).str());
  o.add_raw("scores", json_array(scores));
  return o;
}

}  // namespace

SweepSpec read_sweep(const std::string& file, const std::vector<std::string>& overrides) {
  if (file.empty())
    fail<ConfigError>("ablate", "no configuration: give one with -c FILE.yaml (a list of methods on a base)");
  Config sweep = Config::load(file);
  std::vector<std::string> for_runs;
  for (const auto& text : overrides) {
    if (is_sweep_override(text)) {
      sweep.override_with(text);
    } else {
      for_runs.push_back(text);
    }
  }
  SweepSpec spec;
  spec.out = sweep.get("out", "");
  spec.seeds = sweep.get("seeds", std::vector<std::int64_t>{1});
  if (spec.seeds.empty()) sweep.reject("seeds", "at least one seed is needed");
  if (std::set<std::int64_t>(spec.seeds.begin(), spec.seeds.end()).size() != spec.seeds.size()) {
    sweep.reject("seeds", "a seed appears twice");
  }
  spec.splits = sweep.get("splits", std::vector<std::string>{});
  spec.best = sweep.get<bool>("best", false);
  Config base = read_base(sweep, fs::path(file).parent_path());
  lay_over(base, sweep.section("common").copy({"seed", "out"}));
  std::set<std::string> names;
  for (const Config& section : sweep.sections("methods")) {
    const std::string name = read_name(section, names);
    names.insert(name);
    spec.methods.push_back(read_method(section, base, for_runs, name));
  }
  if (spec.methods.empty()) sweep.reject("methods", "a sweep needs at least one method, e.g. `- {name: alone}`");
  const auto alone =
      std::find_if(spec.methods.begin(), spec.methods.end(), [](const auto& m) { return !m.distillation; });
  spec.baseline = sweep.get("baseline", alone != spec.methods.end() ? alone->name : spec.methods.front().name);
  if (!names.contains(spec.baseline)) {
    sweep.reject("baseline",
                 fmt::format("no method is called '{}'; methods: {}", spec.baseline, fmt::join(names, ", ")));
  }
  sweep.check_all_used();
  return spec;
}

std::string to_json(const RunRecord& record) { return record_json(record).str(); }

void write_record(const fs::path& file, const RunRecord& record) {
  JsonObject o = record_json(record);
  o.add("config", record.config);
  write_file_atomic(file, o.str() + "\n");
}

std::optional<RunRecord> read_record(const fs::path& file) {
  if (!fs::exists(file)) return std::nullopt;
  try {
    const auto o = nlohmann::json::parse(read_file(file));
    RunRecord r;
    r.method = o.at("method").get<std::string>();
    r.seed = o.at("seed").get<std::int64_t>();
    r.state = o.at("state").get<std::string>();
    r.config = o.at("config").get<std::string>();
    r.reason = o.value("reason", "");
    r.exit_code = o.value("exit_code", 0);
    r.steps = o.at("steps").get<std::int64_t>();
    r.seconds = o.at("seconds").get<double>();
    r.seconds_per_step = number_or_nan(o.at("seconds_per_step"));
    r.peak_bytes = o.at("peak_bytes").get<double>();
    r.objective = o.at("objective").get<std::vector<std::string>>();
    for (const auto& s : o.at("scores")) {
      SplitScore score{s.at("split").get<std::string>(),
                       s.at("weights").get<std::string>(),
                       s.at("miou").get<double>(),
                       s.at("pixel_acc").get<double>(),
                       {},
                       s.at("images").get<std::int64_t>(),
                       s.at("protocol").get<std::string>()};
      for (const auto& v : s.at("iou")) score.iou.push_back(number_or_nan(v));
      r.scores.push_back(std::move(score));
    }
    return r;
  } catch (const nlohmann::json::exception& e) {
    fail("ablate", "{} is not the record of a run: {}; remove it to train that run again", file.string(), e.what());
  }
}

std::string first_difference(const std::string& was, const std::string& is) {
  std::istringstream a(was);
  std::istringstream b(is);
  std::string left;
  std::string right;
  for (int line = 1;; ++line) {
    const bool more_left = static_cast<bool>(std::getline(a, left));
    const bool more_right = static_cast<bool>(std::getline(b, right));
    if (!more_left && !more_right) return {};
    if (!more_left) left = "(end)";
    if (!more_right) right = "(end)";
    if (left != right) return fmt::format("line {}: '{}' instead of '{}'", line, right, left);
  }
}

}  // namespace limbeck::apps
