// The verbs `train` and `distill`: from a configuration to a run folder.
#include "apps/cli.h"
#include "apps/settings.h"
#include "apps/train_run.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {

int run_train(const TrainArgs& args, bool distillation) {
  Config config = load_config(args);
  if (args.seed) config.override_with(fmt::format("seed={}", *args.seed));
  const Settings settings = read_settings(config, distillation);
  const std::string out = args.out.empty() ? config.get<std::string>("out") : (static_cast<void>(config.get("out", args.out)), args.out);
  config.check_all_used();
  if (!Device::parse(args.device).is_cpu()) {
    fail<ConfigError>("device", "{} is not available in this build; use --device cpu", args.device);
  }

  const std::filesystem::path run = out;
  TrainInputs inputs = open_data(settings);
  if (distillation) inputs.teacher = load_teacher(settings, *inputs.val);
  const RunFolder folder = args.resume ? RunFolder::kResume : args.force ? RunFolder::kReplace : RunFolder::kNew;
  const TrainOutcome outcome = make_trainer(settings, inputs, run, folder, config.dump())->train();
  if (args.json) {
    fmt::print("{}\n", JsonObject()
                           .add("run", run.string())
                           .add("steps", outcome.steps)
                           .add("best_miou", outcome.best_miou)
                           .add("last_miou", outcome.last_miou)
                           .add("seconds", outcome.seconds)
                           .str());
  }
  if (outcome.interrupted) return static_cast<int>(ExitCode::kInterrupted);
  if (outcome.stopped) return static_cast<int>(ExitCode::kSaved);
  log_info("done: {} steps in {}, best val mIoU {:.2f}; see {}", outcome.steps, format_duration(outcome.seconds),
           outcome.best_miou, (run / "report.html").string());
  return 0;
}

}  // namespace limbeck::apps
