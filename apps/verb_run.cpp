// The verb `run`: the stages of one file, each in a folder of its own; started again, it goes on where it stopped.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/cli.h"
#include "apps/model_io.h"
#include "apps/run_dir.h"
#include "apps/signals.h"
#include "apps/stage_table.h"
#include "apps/stages.h"
#include "apps/train_run.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/log.h"
#include "nn/checkpoint.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

// In a stage's folder: what the staged file asked for when the stage was started.
constexpr const char* kRecord = "stage.yaml";

enum class Progress : std::uint8_t { kNew, kStarted, kFinished };

/// The first line in which two texts differ, as "'a' was 'b'".
std::string first_difference(const std::string& now, const std::string& then) {
  std::istringstream a(now);
  std::istringstream b(then);
  std::string x;
  std::string y;
  do {
    if (!std::getline(a, x)) x.clear();
    if (!std::getline(b, y)) y.clear();
  } while (x == y && (a || b));
  return fmt::format("'{}' was '{}'", x, y);
}

bool is_finished(const fs::path& folder) {
  if (!fs::exists(folder / "run.json")) return false;
  const auto run = nlohmann::json::parse(read_file(folder / "run.json"), nullptr, false);
  return run.is_object() && run.contains("steps_done") && run["steps_done"] == run["steps"];
}

/// How far a stage is. Throws ConfigError when the folder holds a run of other settings.
Progress progress_of(const fs::path& root, const Stage& stage) {
  const fs::path folder = root / stage.name;
  const bool recorded = fs::exists(folder / kRecord);
  if (!recorded && !fs::exists(folder / "config.yaml") && nn::list_checkpoints(folder).empty()) return Progress::kNew;
  if (!recorded) {
    fail<ConfigError>("run", "{} holds a run that is no stage; choose another --out", folder.string());
  }
  const std::string then = read_file(folder / kRecord);
  if (then != stage.text()) {
    fail<ConfigError>("run",
                      "stage '{}' in {} was started with other settings ({}); choose another --out, remove the folder, "
                      "or start everything again with --force",
                      stage.name, folder.string(), first_difference(stage.text(), then));
  }
  return !stage.from.empty() || is_finished(folder) ? Progress::kFinished : Progress::kStarted;
}

/// Refuses results that were made from a stage which is not there any more.
void check_order(const std::vector<Stage>& stages, const std::vector<Progress>& progress, const fs::path& root) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (progress[i] == Progress::kNew) continue;
    for (std::size_t k = 0; k < i; ++k) {
      const auto& needs = stages[i].needs;
      if (progress[k] == Progress::kFinished || std::find(needs.begin(), needs.end(), stages[k].name) == needs.end())
        continue;
      fail<ConfigError>(
          "run",
          "stage '{}' was made from '{}', which is not finished in {}; remove {}, or start everything again "
          "with --force",
          stages[i].name, stages[k].name, root.string(), (root / stages[i].name).string());
    }
  }
}

void remove_scores(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("eval_") && name.ends_with(".json")) fs::remove(entry.path());
  }
}

/// A result from elsewhere must be what the stage would have made: a mistake here costs seconds, in a later stage hours.
void check_taken(const Stage& stage, const fs::path& root) {
  if (stage.from.empty()) return;
  const fs::path file = find_weights(stage.from);
  if (stage.verb == Verb::kAutoencoder) return;  // the stage that uses it knows which teacher it must fit
  const std::string wanted = stage.resolved(root).get<std::string>("model.name");
  const std::string found = load_model(file).card.spec.name;
  if (found == wanted) return;
  fail<WeightsError>("run", "stage '{}' is taken from {}, which holds a {}, but its model.name is {}", stage.name,
                     file.string(), found, wanted);
}

void take_stage(const Stage& stage, const fs::path& root) {
  const fs::path folder = root / stage.name;
  fs::create_directories(folder);
  write_file_atomic(folder / kRecord, stage.text());
  remove_scores(folder);
}

TrainOutcome run_stage(const Stage& stage, const fs::path& root, Progress progress, bool force) {
  const fs::path folder = root / stage.name;
  const Config config = stage.resolved(root);
  const Settings settings = read_settings(config, stage.verb);
  const RunFolder mode = force                            ? RunFolder::kReplace
                         : progress == Progress::kStarted ? RunFolder::kResume
                                                          : RunFolder::kNew;
  const auto trainer = make_trainer(settings, open_inputs(settings), folder, mode, config.dump());
  write_file_atomic(folder / kRecord, stage.text());
  remove_scores(folder);  // of the weights before
  return trainer->train();
}

}  // namespace

int run_stages(const TrainArgs& args) {
  Config config = load_config(args);
  if (args.seed) config.override_with(fmt::format("common.seed={}", *args.seed));
  if (!args.out.empty()) config.override_with("out=" + json_quote(args.out));
  const StagedConfig staged = read_stages(config);
  const nn::ParameterDevice parameters(open_device(args.device));
  const fs::path root = staged.out;

  std::vector<Progress> progress;
  for (const Stage& stage : staged.stages) progress.push_back(args.force ? Progress::kNew : progress_of(root, stage));
  check_order(staged.stages, progress, root);
  for (const Stage& stage : staged.stages) {
    check_taken(stage, root);
    if (stage.verb != Verb::kAutoencoder) require_splits(read_data(stage.resolved(root)).val, staged.splits);
  }
  const SignalGuard signals;  // between stages too
  for (std::size_t i = 0; i < staged.stages.size(); ++i) {
    const Stage& stage = staged.stages[i];
    const std::string title =
        fmt::format("stage {}/{} {} ({})", i + 1, staged.stages.size(), stage.name, name_of(stage.verb));
    if (progress[i] == Progress::kFinished) {
      log_info("{}: finished before", title);
      continue;
    }
    if (!stage.from.empty()) {
      log_info("{}: taken from {}", title, stage.from);
      take_stage(stage, root);
      continue;
    }
    log_info("{}{}", title, progress[i] == Progress::kStarted ? ": going on" : "");
    const TrainOutcome outcome = run_stage(stage, root, progress[i], args.force);
    if (const int status = exit_status(outcome); status != 0) return status;
    if (const int signal = signals.received(); signal != 0) {
      log_warn("stopped by a signal after stage '{}'; run the same command again to go on", stage.name);
      return static_cast<int>(signal == SIGINT ? ExitCode::kInterrupted : ExitCode::kSaved);
    }
  }
  const std::string table = write_stage_table(root, staged);
  if (args.json) {
    fmt::print("{}\n", JsonObject().add("run", root.string()).add("table", table).str());
  } else {
    fmt::print("{}", table);
  }
  log_info("done; see {}", (root / "report.html").string());
  return 0;
}

}  // namespace limbeck::apps
