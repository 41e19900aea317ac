// The verbs `train`, `autoencoder` and `distill`: from a configuration to a run folder.
#include "apps/cli.h"
#include "apps/settings.h"
#include "apps/train_run.h"
#include "core/json.h"
#include "core/log.h"
#include "nn/module.h"

namespace limbeck::apps {
namespace {

int run_verb(const TrainArgs& args, Verb verb) {
  Config config = load_config(args);
  if (args.seed) config.override_with(fmt::format("seed={}", *args.seed));
  if (!args.out.empty()) config.override_with("out=" + json_quote(args.out));
  const Settings settings = read_settings(config, verb);
  const std::filesystem::path run = config.get<std::string>("out");
  config.check_all_used();
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
    log_info("done: {} steps in {}, best val {} {:.2f}; see {}", outcome.steps, format_duration(outcome.seconds),
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
