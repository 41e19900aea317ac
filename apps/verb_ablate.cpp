// The verb `ablate`: every method of a sweep with every seed, one run after the other in this process, then the tables.
//
// Note [what a stopped sweep costs]
//   A run that is finished has a result.json and is skipped the next time; the one that was going on is resumed from its
//   newest checkpoint, bit for bit as `train --resume` does it. Runs go seed by seed, so that a sweep that is looked at
//   half way already compares all methods on equal terms.
#include <algorithm>
#include <cmath>
#include <map>
#include <new>
#include <set>

#include "apps/cli.h"
#include "apps/model_io.h"
#include "apps/signals.h"
#include "apps/statistics.h"
#include "apps/student_task.h"
#include "apps/sweep.h"
#include "apps/sweep_table.h"
#include "apps/train_run.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/nearest_word.h"
#include "datasets/image_io.h"
#include "nn/module.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

/// Thrown out of an evaluation when a signal has come; what is trained by then is on disk.
struct Stopped {};

/// A configuration, read and checked: misspelt keys are found before the first run starts.
struct Plan {
  Settings settings;
  std::string config_text;  ///< defaults included
  std::string written;      ///< as the user wrote it
  std::string data_key;
  std::string teacher_key;
};

Plan plan_run(const SweepMethod& method, std::int64_t seed) {
  Config config = method.config.copy();
  config.override_with(fmt::format("seed={}", seed));
  Plan plan;
  plan.written = config.dump();
  plan.settings = read_settings(config, method.distillation ? Verb::kDistill : Verb::kTrain);
  if (plan.settings.classify) config.reject("task", "a sweep compares mIoU; expected segment");
  config.check_all_used();
  plan.config_text = config.dump();
  plan.data_key = config.section("data").dump() + plan.settings.train.class_weights;
  if (method.distillation) plan.teacher_key = config.section("teacher").dump() + plan.data_key;
  return plan;
}

class Sweep {
 public:
  Sweep(SweepSpec spec, fs::path out, bool force) : spec_(std::move(spec)), out_(std::move(out)), force_(force) {}

  int run(const std::vector<std::string>& only, bool json);

 private:
  struct Teacher {
    std::shared_ptr<models::Model> model;
    std::size_t bytes = 0;
  };
  [[nodiscard]] fs::path folder_of(const SweepMethod& method, std::int64_t seed) const {
    return out_ / method.name / fmt::format("seed_{}", seed);
  }
  [[nodiscard]] bool is_active(const SweepMethod& method) const {
    return only_.empty() || std::find(only_.begin(), only_.end(), method.name) != only_.end();
  }
  /// Finished, and scored wherever this sweep wants it: a split may have been added since.
  [[nodiscard]] bool is_finished(const SweepMethod& method, std::int64_t seed) const;
  void check_only() const;
  void prepare();
  void load_records();
  TrainInputs inputs_of(const Plan& plan, bool distillation);
  void run_all();
  RunRecord run_one(const SweepMethod& method, std::int64_t seed);
  void train_and_score(const SweepMethod& method, const fs::path& run, RunRecord& record);
  void score(Trainer& trainer, const Plan& plan, const fs::path& run, const TrainOutcome& outcome, RunRecord& record);
  void log_progress() const;
  [[nodiscard]] double seconds_left() const;
  [[nodiscard]] SweepReport report() const;
  void write_tables() const;

  SweepSpec spec_;
  fs::path out_;
  bool force_;
  std::vector<std::string> only_;
  std::map<std::string, TrainInputs> data_;  // without teacher
  std::map<std::string, Teacher> teachers_;
  std::map<std::pair<std::string, std::int64_t>, RunRecord> records_;
  std::map<std::string, std::vector<double>> wall_;  // seconds of the runs done here, per method
  std::set<fs::path> restart_;                       // runs to be made anew
  std::size_t to_do_ = 0;
  std::size_t done_ = 0;
  const SignalGuard signals_;
};

bool Sweep::is_finished(const SweepMethod& method, std::int64_t seed) const {
  const auto record = records_.find({method.name, seed});
  if (record == records_.end() || record->second.state != "finished") return false;
  const auto has = [&](const std::string& split, std::string_view weights) {
    const auto& scores = record->second.scores;
    return std::any_of(scores.begin(), scores.end(),
                       [&](const auto& s) { return s.split == split && s.weights == weights; });
  };
  return std::all_of(spec_.splits.begin(), spec_.splits.end(),
                     [&](const auto& split) { return has(split, "last") && (!spec_.best || has(split, "best")); });
}

void Sweep::check_only() const {
  std::vector<std::string> names;
  for (const auto& m : spec_.methods) names.push_back(m.name);
  for (const auto& name : only_) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string near = nearest_word(name, names);
    fail<ConfigError>("ablate", "--only {}: no such method{}; methods: {}", name,
                      near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", "));
  }
}

TrainInputs Sweep::inputs_of(const Plan& plan, bool distillation) {
  auto data = data_.find(plan.data_key);
  if (data == data_.end()) data = data_.emplace(plan.data_key, open_data(plan.settings)).first;
  TrainInputs inputs = data->second;
  if (!distillation) return inputs;
  auto teacher = teachers_.find(plan.teacher_key);
  if (teacher == teachers_.end()) {
    const std::size_t before = CpuAllocator::get().stats().in_use;
    Teacher loaded{load_teacher(plan.settings, *inputs.val), 0};
    loaded.bytes = CpuAllocator::get().stats().in_use - before;
    teacher = teachers_.emplace(plan.teacher_key, std::move(loaded)).first;
  }
  inputs.teacher = teacher->second.model;
  return inputs;
}

/// Builds every objective once: an unknown tap or a bad option of the last method must not come up after hours.
void Sweep::prepare() {
  for (const auto& method : spec_.methods) {
    if (!is_active(method)) continue;
    Plan plan = plan_run(method, spec_.seeds.front());
    if (spec_.splits.empty()) spec_.splits = {plan.settings.data.val.split};
    require_splits(plan.settings.data.val, spec_.splits);
    const TrainInputs inputs = inputs_of(plan, method.distillation);
    try {
      static_cast<void>(build_objective(plan.settings, inputs));
    } catch (const Error& e) {
      throw ConfigError(fmt::format("method '{}': {}", method.name, e.what()));
    }
  }
}

void Sweep::load_records() {
  for (const auto seed : spec_.seeds) {
    for (const auto& method : spec_.methods) {
      const fs::path run = folder_of(method, seed);
      auto record = read_record(run / "result.json");
      if (!record) continue;
      const std::string now = plan_run(method, seed).written;
      const auto difference = first_difference(record->config, now);
      const bool failed = record->state == "failed";
      if (force_ && is_active(method)) continue;
      if (!difference.empty() && failed) {
        restart_.insert(run);  // its configuration was mended; nothing of it is worth keeping
        continue;
      }
      if (!difference.empty()) {
        fail<ConfigError>(
            "ablate",
            "{} holds a run with another configuration ({}); choose another --out, or train it again with --force",
            run.string(), difference);
      }
      // A run that failed is tried again: the disk may have space now.
      if (!failed) records_.insert_or_assign({method.name, seed}, std::move(*record));
    }
  }
}

void Sweep::score(Trainer& trainer, const Plan& plan, const fs::path& run, const TrainOutcome& outcome,
                  RunRecord& record) {
  const auto stop_on_signal = [&](std::size_t, const datasets::Sample&, const auto&) {
    if (signals_.received() != 0) throw Stopped{};
  };
  const auto add = [&](const std::string& split, const char* weights, const Evaluation& e) {
    SplitScore s{split, weights, 100 * e.metrics.miou, 100 * e.metrics.pixel_accuracy, {}, e.images, e.protocol};
    for (const double v : e.metrics.iou) s.iou.push_back(100 * v);
    log_info("{}, seed {}: {} {}: {}", record.method, record.seed, split, weights, datasets::summary_line(e.metrics));
    record.scores.push_back(std::move(s));
  };
  auto& student = dynamic_cast<StudentTask&>(trainer.task());  // a sweep trains nothing else
  std::shared_ptr<models::Model> best;
  if (spec_.best) best = load_model(run / "best").model;
  for (const auto& split : spec_.splits) {
    datasets::DatasetSpec spec = plan.settings.data.val;
    const bool validated = split == spec.split && outcome.last.has_value();
    spec.split = split;
    const auto dataset = datasets::make_dataset(spec);
    if (validated) {
      add(split, "last", *outcome.last);
    } else {
      const auto average = trainer.average();
      add(split, "last", student.evaluate_on(*dataset, stop_on_signal));
    }
    if (best) add(split, "best", evaluate(*best, *dataset, student.inference_options(), 0, stop_on_signal));
  }
}

void Sweep::train_and_score(const SweepMethod& method, const fs::path& run, RunRecord& record) {
  Plan plan = plan_run(method, record.seed);
  record.config = plan.written;
  const TrainInputs inputs = inputs_of(plan, method.distillation);
  // Teachers of other methods lie in memory too; only the own one counts.
  double others = static_cast<double>(CpuAllocator::get().stats().in_use);
  if (method.distillation) others -= static_cast<double>(teachers_.at(plan.teacher_key).bytes);
  const bool resume = !force_ && !restart_.contains(run) && fs::exists(run / "config.yaml");
  const auto trainer =
      make_trainer(plan.settings, inputs, run, resume ? RunFolder::kResume : RunFolder::kReplace, plan.config_text);
  const TrainOutcome outcome = trainer->train();
  record.steps = outcome.steps;
  record.seconds += outcome.seconds;
  record.objective = trainer->task().describe();
  if (std::isfinite(outcome.seconds_per_step)) {
    record.seconds_per_step = outcome.seconds_per_step;
    record.peak_bytes = static_cast<double>(outcome.peak_bytes) - others;
  }
  record.state = outcome.stopped || outcome.interrupted ? "stopped" : "trained";
  write_record(run / "result.json", record);
  if (record.state == "stopped") throw Stopped{};
  score(*trainer, plan, run, outcome, record);
  record.state = "finished";
}

RunRecord Sweep::run_one(const SweepMethod& method, std::int64_t seed) {
  const fs::path run = folder_of(method, seed);
  RunRecord record;
  record.method = method.name;
  record.seed = seed;
  record.seconds_per_step = std::nan("");
  const auto earlier = records_.find({method.name, seed});
  if (earlier != records_.end()) {
    record.seconds = earlier->second.seconds;
    record.seconds_per_step = earlier->second.seconds_per_step;
    record.peak_bytes = earlier->second.peak_bytes;
  }
  const auto failed = [&](const char* what, ExitCode code) {
    record.state = "failed";
    record.reason = what;
    record.exit_code = static_cast<int>(code);
    log_error("{}, seed {}: {}; the sweep goes on", method.name, seed, what);
  };
  try {
    train_and_score(method, run, record);
  } catch (const Error& e) {
    failed(e.what(), e.exit_code());
  } catch (const std::bad_alloc&) {
    failed("out of memory", ExitCode::kRuntime);
  } catch (const std::exception& e) {
    failed(e.what(), ExitCode::kRuntime);
  }
  if (fs::is_directory(run)) write_record(run / "result.json", record);
  return record;
}

/// Runs of a method take about as long as its other runs did, or as the average run.
double Sweep::seconds_left() const {
  std::vector<double> all;
  for (const auto& [name, seconds] : wall_) all.insert(all.end(), seconds.begin(), seconds.end());
  if (all.empty()) return -1;
  double left = 0;
  for (const auto seed : spec_.seeds) {
    for (const auto& method : spec_.methods) {
      const auto record = records_.find({method.name, seed});
      const bool failed = record != records_.end() && record->second.state == "failed";
      if (!is_active(method) || failed || is_finished(method, seed)) continue;
      const auto known = wall_.find(method.name);
      left += known != wall_.end() ? mean_of(known->second) : mean_of(all);
    }
  }
  return left;
}

void Sweep::log_progress() const {
  log_info("sweep: {} of {} done, eta {}", done_, format_count(to_do_, "run"), format_duration(seconds_left()));
}

void Sweep::run_all() {
  std::size_t skipped = 0;
  for (const auto seed : spec_.seeds) {
    for (const auto& method : spec_.methods) {
      if (is_active(method)) (is_finished(method, seed) ? skipped : to_do_) += 1;
    }
  }
  if (skipped > 0) log_info("sweep: finished already: {}", format_count(skipped, "run"));
  for (const auto seed : spec_.seeds) {
    for (const auto& method : spec_.methods) {
      if (!is_active(method) || is_finished(method, seed)) continue;
      if (signals_.received() != 0) throw Stopped{};
      log_info("sweep: run {} of {}: {}, seed {}", done_ + 1, to_do_, method.name, seed);
      const double start = monotonic_seconds();
      RunRecord record = run_one(method, seed);
      if (record.state == "finished") wall_[method.name].push_back(monotonic_seconds() - start);
      records_.insert_or_assign({method.name, seed}, std::move(record));
      ++done_;
      write_tables();
      log_progress();
    }
  }
}

SweepReport Sweep::report() const {
  SweepReport r;
  r.title = out_.filename().empty() ? out_.parent_path().filename().string() : out_.filename().string();
  const Plan plan = plan_run(spec_.methods.front(), spec_.seeds.front());
  const auto& t = plan.settings.train;
  const auto& crop = plan.settings.data.transform;
  r.facts.push_back(fmt::format(
      "student: {}{}", plan.settings.model.spec.name,
      plan.settings.model.init.empty() ? ", random initial weights" : ", initial weights " + plan.settings.model.init));
  for (const auto& method : spec_.methods) {
    if (!method.distillation) continue;
    const auto teacher = plan_run(method, spec_.seeds.front()).settings.teacher;
    r.facts.push_back(fmt::format("teacher: {} from {}", teacher.spec.name, teacher.init));
    break;
  }
  r.facts.push_back(
      fmt::format("budget: {} of batch {}{}, {}, lr {} ({}), data {} {}",
                  t.steps > 0 ? format_count(t.steps, "step") : format_count(t.epochs, "epoch"), t.batch * t.accumulate,
                  crop.crop_h > 0 ? fmt::format(", crop {}x{}", crop.crop_h, crop.crop_w) : "", t.precision,
                  format_short(t.lr), t.schedule, plan.settings.data.train.kind, plan.settings.data.train.split));
  r.facts.push_back(fmt::format("seeds: {}", fmt::join(spec_.seeds, ", ")));
  for (const auto& [key, inputs] : data_) r.class_names = inputs.train->classes().names;
  for (const auto& m : spec_.methods) r.methods.push_back(m.name);
  r.baseline = spec_.baseline;
  r.splits = spec_.splits;
  r.best = spec_.best;
  r.planned = spec_.methods.size() * spec_.seeds.size();
  std::string protocol;
  for (const auto seed : spec_.seeds) {
    for (const auto& m : spec_.methods) {
      const auto found = records_.find({m.name, seed});
      if (found == records_.end()) continue;
      if (!found->second.scores.empty()) protocol = found->second.scores.front().protocol;
      r.records.push_back(found->second);
    }
  }
  if (!protocol.empty()) r.facts.push_back("scores: " + protocol);
  return r;
}

void Sweep::write_tables() const {
  const SweepReport r = report();
  write_file_atomic(out_ / "results.json", sweep_json(r));
  write_file_atomic(out_ / "table.md", sweep_markdown(r));
  write_file_atomic(out_ / "table.html", sweep_html(r));
  for (const auto& split : r.splits) {
    std::string name = split;
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    datasets::write_image(out_ / fmt::format("bars_{}.png", name), to_image(sweep_chart(r, split, "last")));
  }
}

int Sweep::run(const std::vector<std::string>& only, bool json) {
  only_ = only;
  check_only();
  load_records();
  prepare();
  std::error_code error;
  fs::create_directories(out_, error);
  if (error) fail("ablate", "cannot create {}: {}", out_.string(), error.message());
  try {
    run_all();
  } catch (const Stopped&) {
    log_warn("stopped by a signal with {} of {} done; run the same command again to go on", done_,
             format_count(to_do_, "run"));
    return static_cast<int>(signals_.received() == SIGINT ? ExitCode::kInterrupted : ExitCode::kSaved);
  }
  write_tables();
  const SweepReport r = report();
  fmt::print("{}", json ? sweep_json(r) : sweep_markdown(r));
  log_info("tables and plots: {}", (out_ / "table.html").string());
  for (const auto& record : r.records) {
    if (record.state == "failed") return record.exit_code;
  }
  return 0;
}

}  // namespace

int run_ablate(const AblateArgs& args) {
  const nn::ParameterDevice parameters(open_device(args.device));
  SweepSpec spec = read_sweep(args.config, args.overrides);
  if (args.seed) spec.seeds = {static_cast<std::int64_t>(*args.seed)};
  const std::string out = args.out.empty() ? spec.out : args.out;
  if (out.empty()) fail<ConfigError>("ablate", "no folder for the runs: give --out DIR, or `out:` in {}", args.config);
  Sweep sweep(std::move(spec), out, args.force);
  return sweep.run(args.only, args.json);
}

}  // namespace limbeck::apps
