// The verbs `train`, `autoencoder` and `distill`: from a configuration to a run folder.
#include <filesystem>
#include <string>
#include <vector>

#include "apps/cli.h"
#include "apps/compare.h"
#include "apps/run_dir.h"
#include "apps/settings.h"
#include "apps/train_run.h"
#include "core/json.h"
#include "core/log.h"
#include "nn/module.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

/// --resume without -c goes on with the configuration that the run folder holds.
Config config_of(TrainArgs args) {
  const fs::path stored = fs::path(args.out) / "config.yaml";
  if (args.resume && args.config.empty() && !args.out.empty() && fs::exists(stored)) args.config = stored.string();
  return load_config(args);
}

/// A run that is resumed with another configuration is no longer the run that was stopped. That may be meant (more steps),
/// so it is said and done.
void name_changes(const fs::path& run, const Config& config) {
  const fs::path stored = run / "config.yaml";
  if (!fs::exists(stored)) return;
  const auto text = [](const std::optional<std::string>& value) { return value.value_or("(absent)"); };
  std::vector<std::string> changes;
  for (const auto& d : config_differences(Config::load(stored), Config::parse(config.dump(), "configuration"))) {
    changes.push_back(fmt::format("{} {} -> {}", d.key, text(d.a), text(d.b)));
  }
  if (changes.empty()) return;
  log_warn("{} is resumed with another configuration: {}", run.string(), fmt::join(changes, ", "));
}

int run_verb(const TrainArgs& args, Verb verb) {
  Config config = config_of(args);
  if (args.seed) config.override_with(fmt::format("seed={}", *args.seed));
  if (!args.out.empty()) config.override_with("out=" + json_quote(args.out));
  const Settings settings = read_settings(config, verb);
  if (!config.has("out")) config.reject("out", "the run folder is missing; give -o DIR, or the key");
  const fs::path run = config.get<std::string>("out");
  config.check_all_used();
  if (!args.resume && !args.force) require_new_run_dir(run);
  if (args.resume) name_changes(run, config);
  const nn::ParameterDevice parameters(open_device(args.device));

  const RunFolder folder = args.resume ? RunFolder::kResume : args.force ? RunFolder::kReplace : RunFolder::kNew;
  const TrainOutcome outcome = run_training(settings, run, folder, config.dump());
  if (args.json) {
    const std::string score = verb == Verb::kAutoencoder ? "explained" : settings.classify ? "top1" : "miou";
    fmt::print("{}\n", JsonObject()
                           .add("run", run.string())
                           .add("steps", outcome.steps)
                           .add("best_" + score, outcome.best_score)
                           .add("last_" + score, outcome.last_score)
                           .add("seconds", outcome.seconds)
                           .str());
  }
  const int status = exit_status(outcome);
  if (status == 0) {
    log_info("done: {} in {}, best val {} {:.2f}; see {}", format_count(outcome.steps, "step"),
             format_duration(outcome.seconds),
             verb == Verb::kAutoencoder ? "explained variance"
             : settings.classify        ? "top-1"
                                        : "mIoU",
             outcome.best_score, (run / "report.html").string());
  }
  return status;
}

}  // namespace

int run_train(const TrainArgs& args) { return run_verb(args, Verb::kTrain); }
int run_autoencoder(const TrainArgs& args) { return run_verb(args, Verb::kAutoencoder); }
int run_distill(const TrainArgs& args) { return run_verb(args, Verb::kDistill); }

}  // namespace limbeck::apps
