// The verbs `train` and `distill`: from a configuration to a run folder.
#include <algorithm>
#include <cmath>

#include "apps/cli.h"
#include "apps/model_io.h"
#include "apps/run_dir.h"
#include "apps/settings.h"
#include "apps/trainer.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/check_data.h"
#include "models/weights.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kWeightStream = 0;

void set_classes(ModelSettings& model, const datasets::Dataset& data, const char* role) {
  const std::int64_t classes = data.classes().count();
  if (model.spec.classes == 0) model.spec.classes = classes;
  if (model.spec.classes != classes) {
    fail<ConfigError>(role, "classes is {}, but the data set has {}", model.spec.classes, classes);
  }
}

/// The teacher, from the folder of its run: architecture, classes and input scaling come with the weights.
std::shared_ptr<models::Model> load_teacher(const Settings& settings, const datasets::Dataset& val) {
  const LoadedModel loaded = load_model(settings.teacher.init);
  const auto& want = settings.teacher.spec;
  if (loaded.card.spec.name != want.name) {
    fail<WeightsError>("teacher", "{} holds a {}, but teacher.name is {}", loaded.file.string(), loaded.card.spec.name,
                       want.name);
  }
  if (loaded.card.spec.classes != val.classes().count()) {
    fail<WeightsError>("teacher", "{} has {} classes, the data set {}", loaded.file.string(), loaded.card.spec.classes,
                       val.classes().count());
  }
  if (loaded.card.normalisation != settings.data.normalisation) {
    fail<WeightsError>("teacher", "{} was trained with normalisation {}, data.normalisation is {}; teacher and student "
                       "see the same images", loaded.file.string(), loaded.card.normalisation, settings.data.normalisation);
  }
  loaded.model->freeze();
  log_info("teacher: {} from {}, {} parameters, frozen", want.name, loaded.file.string(), loaded.model->parameter_count());
  if (settings.teacher.min_miou > 0) {
    InferenceOptions options;
    options.normalisation = settings.data.transform.normalisation;
    options.align_corners = loaded.card.align_corners;
    const auto e = evaluate(*loaded.model, val, options, static_cast<std::size_t>(settings.teacher.gate_images));
    const double miou = 100 * e.metrics.miou;
    if (miou < settings.teacher.min_miou) {
      fail<WeightsError>("teacher", "the teacher reaches {:.2f} mIoU on {} validation images, teacher.min_miou asks for "
                         "{:.2f}; distilling from it would teach mistakes", miou, e.images, settings.teacher.min_miou);
    }
    log_info("teacher gate: {:.2f} mIoU on {} images (at least {:.2f} asked)", miou, e.images, settings.teacher.min_miou);
  }
  return loaded.model;
}

std::shared_ptr<models::Model> build_student(const Settings& settings) {
  Generator weights(settings.seed, kWeightStream);
  auto model = models::make_model(settings.model.spec, weights);
  if (!settings.model.init.empty()) {
    models::WeightsOptions options;
    options.strict = settings.model.init_strict;
    const auto report = models::load_weights(*model, find_weights(settings.model.init), options);
    log_info("init: {}: {}", settings.model.init, report.to_string());
  }
  return model;
}

/// A quick look at some samples before hours of training: readable files, ids in range.
void spot_check(const datasets::Dataset& data, const char* name) {
  constexpr std::size_t kSamples = 8;
  const std::size_t stride = std::max<std::size_t>(1, data.size() / kSamples);
  for (std::size_t i = 0; i < data.size(); i += stride) static_cast<void>(data.load(i));
  log_info("{}: {} samples, {} classes", name, data.size(), data.classes().count());
}

/// Median-frequency weights of the training split, as f32 [K]. Their square root lifts the rare classes less: full
/// balancing makes a net draw thin things too thick, which costs IoU.
Tensor balance_classes(const datasets::DatasetSpec& train, const std::string& kind) {
  auto weights = datasets::check_data({train}).class_weights;
  if (kind == "sqrt_median_frequency") {
    for (double& w : weights) w = std::sqrt(w);
  }
  std::string text;
  for (const double w : weights) text += fmt::format(" {:.2f}", w);
  log_info("class weights ({}):{}", kind, text);
  return Tensor::from(std::vector<float>(weights.begin(), weights.end()), {static_cast<std::int64_t>(weights.size())});
}

}  // namespace

int run_train(const TrainArgs& args, bool distillation) {
  Config config = load_config(args);
  if (args.seed) config.override_with(fmt::format("seed={}", *args.seed));
  Settings settings = read_settings(config, distillation);
  const std::string out = args.out.empty() ? config.get<std::string>("out") : (static_cast<void>(config.get("out", args.out)), args.out);
  config.check_all_used();
  if (!Device::parse(args.device).is_cpu()) {
    fail<ConfigError>("device", "{} is not available in this build; use --device cpu", args.device);
  }

  const fs::path run = out;
  const auto train_data = datasets::make_dataset(settings.data.train);
  const auto val_data = datasets::make_dataset(settings.data.val);
  spot_check(*train_data, "train");
  spot_check(*val_data, "val");
  set_classes(settings.model, *train_data, "model");
  if (settings.train.class_weights != "none") {
    settings.class_weights = balance_classes(settings.data.train, settings.train.class_weights);
  }

  auto student = build_student(settings);
  std::shared_ptr<models::Model> teacher;
  if (distillation) teacher = load_teacher(settings, *val_data);
  distill::ObjectiveOptions objective;
  objective.ce_weight = settings.ce_weight;
  objective.aux_weight = settings.aux_weight;
  objective.align_corners = settings.train.align_corners;
  objective.seed = settings.seed;
  objective.cross_entropy.label_smoothing = settings.train.label_smoothing;
  objective.cross_entropy.class_weights = settings.class_weights;
  auto distiller = std::make_shared<distill::Distiller>(student, teacher, settings.terms, objective);

  const std::string text = config.dump();
  if (!args.resume) create_run_dir(run, args.force);
  Trainer trainer(run, settings, distiller, train_data, val_data, text);
  if (args.resume) {
    if (trainer.resume() == 0) {
      log_warn("{} has no checkpoint; starting at step 0", run.string());
      create_run_dir(run, true);
    }
  }
  write_file_atomic(run / "config.yaml", text);
  const TrainOutcome outcome = trainer.train();
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
