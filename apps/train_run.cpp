#include "apps/train_run.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/autoencoder_task.h"
#include "apps/classify_task.h"
#include "apps/model_io.h"
#include "apps/run_dir.h"
#include "apps/student_task.h"
#include "core/file_io.h"
#include "core/log.h"
#include "datasets/check_data.h"
#include "datasets/kept.h"
#include "distill/teacher_code.h"
#include "models/autoencoder.h"
#include "models/weights.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kWeightStream = 0;

void set_classes(ModelSettings& model, const datasets::Dataset& data, const char* role) {
  const std::int64_t classes = data.classes().count();
  if (model.spec.classes == 0) model.spec.classes = classes;
  if (model.spec.classes != classes) {
    fail<ConfigError>(role, "{}.classes is {}, but the data set has {} classes", role, model.spec.classes, classes);
  }
}

std::shared_ptr<models::Model> build_student(const Settings& settings) {
  Generator weights(settings.seed, kWeightStream);
  auto model = models::make_model(settings.model.spec, weights);
  if (!settings.model.init.empty()) {
    models::WeightsOptions options;
    options.strict = settings.model.init_strict;
    const auto report = models::load_weights(*model, find_weights(settings.model.init), options);
    log_info("init: {}: {}", settings.model.init, report.to_string());
    warn_of_other_origin(report.metadata, settings.model.init, settings.model.spec, settings.data.normalisation);
  }
  return model;
}

/// The task that the configuration names must be that of the labels.
void require_task(const Settings& settings, const datasets::Dataset& data) {
  const bool whole = data.target() == datasets::Target::kImage;
  if (whole == settings.classify) return;
  fail<ConfigError>("task", "the data set {} has one class per {}; set `task: {}`", settings.data.train.kind,
                    whole ? "picture" : "pixel", whole ? "classify" : "segment");
}

/// Scores the teacher and refuses it below settings.teacher.min_score.
void pass_gate(const Settings& settings, models::Model& teacher, bool align_corners, const datasets::Dataset& val) {
  const double wanted = settings.teacher.min_score;
  if (wanted <= 0) return;
  const auto options = evaluation_options(settings.data, align_corners);
  const auto limit = static_cast<std::size_t>(settings.teacher.gate_images);
  const double score = 100 * (settings.classify ? evaluate_classes(teacher, val, options, limit).score.top1()
                                                : evaluate(teacher, val, options, limit).metrics.miou);
  const char* name = settings.classify ? "top-1" : "mIoU";
  const std::size_t images = std::min(limit, val.size());
  if (score < wanted) {
    fail<WeightsError>("teacher",
                       "the teacher reaches {:.2f} {} on {}, teacher.{} asks for {:.2f}; distilling "
                       "from it would teach mistakes",
                       score, name, format_count(images, "validation image"),
                       settings.classify ? "min_top1" : "min_miou", wanted);
  }
  log_info("teacher gate: {:.2f} {} on {} (at least {:.2f} asked)", score, name, format_count(images, "image"), wanted);
}

/// A quick look at some samples before hours of training: readable files, ids in range.
void spot_check(const datasets::Dataset& data, const char* name) {
  constexpr std::size_t kSamples = 8;
  const std::size_t stride = std::max<std::size_t>(1, data.size() / kSamples);
  for (std::size_t i = 0; i < data.size(); i += stride) static_cast<void>(data.load(i));
  log_info("{}: {}, {} classes", name, format_count(data.size(), "sample"), data.classes().count());
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
  const auto numbers =
      Tensor::from(std::vector<float>(weights.begin(), weights.end()), {static_cast<std::int64_t>(weights.size())});
  return numbers.to(nn::ParameterDevice::current());
}

}  // namespace

TrainInputs open_data(const Settings& settings) {
  TrainInputs inputs;
  inputs.train = datasets::make_dataset(settings.data.train);
  if (settings.data.keep_in_memory) inputs.train = datasets::keep_in_memory(inputs.train);
  inputs.val = datasets::make_dataset(settings.data.val);
  require_task(settings, *inputs.train);
  if (settings.data.transform.pad_background) {
    log_warn(
        "data.pad_label is background, as in released code: the network learns that padding is class 0, '{}'; ignored "
        "otherwise",
        inputs.train->classes().names.front());
  }
  spot_check(*inputs.train, "train");
  spot_check(*inputs.val, "val");
  if (settings.train.class_weights != "none") {
    inputs.class_weights = balance_classes(settings.data.train, settings.train.class_weights);
  }
  return inputs;
}

void require_splits(datasets::DatasetSpec val, const std::vector<std::string>& splits) {
  for (const std::string& split : splits) {
    val.split = split;
    static_cast<void>(datasets::make_dataset(val));
  }
}

// The architecture, the classes and the input scaling come with the weights; for a file of another project the configuration names them.
std::shared_ptr<models::Model> load_teacher(const Settings& settings, const datasets::Dataset& val) {
  const auto& want = settings.teacher.spec;
  const fs::path file = find_weights(settings.teacher.init);
  ModelCard card{want, val.classes(), settings.data.normalisation, settings.train.align_corners};
  if (card.spec.classes == 0) card.spec.classes = val.classes().count();
  const LoadedModel loaded = describes_itself(file) ? load_model(file) : load_foreign(file, card);
  if (loaded.card.spec.name != want.name) {
    fail<WeightsError>("teacher", "{} holds a {}, but teacher.name is {}", loaded.file.string(), loaded.card.spec.name,
                       want.name);
  }
  if (loaded.card.spec.classes != val.classes().count()) {
    fail<WeightsError>("teacher", "{} has {} classes, the data set {}", loaded.file.string(), loaded.card.spec.classes,
                       val.classes().count());
  }
  if (loaded.card.normalisation != settings.data.normalisation) {
    fail<WeightsError>("teacher",
                       "{} was trained with normalisation {}, data.normalisation is {}; teacher and student "
                       "see the same images",
                       loaded.file.string(), loaded.card.normalisation, settings.data.normalisation);
  }
  require_fitting_network(want.name, val.target(), "teacher");
  loaded.model->freeze();
  log_info("teacher: {} from {}, {} parameters, frozen", want.name, loaded.file.string(),
           loaded.model->parameter_count());
  pass_gate(settings, *loaded.model, loaded.card.align_corners, val);
  return loaded.model;
}

std::shared_ptr<distill::Distiller> build_objective(Settings& settings, const TrainInputs& inputs) {
  set_classes(settings.model, *inputs.train, "model");
  require_fitting_network(settings.model.spec.name, inputs.train->target(), "model");
  auto student = build_student(settings);
  distill::ObjectiveOptions objective;
  objective.ce_weight = settings.ce_weight;
  objective.aux_weight = settings.aux_weight;
  objective.align_corners = settings.train.align_corners;
  objective.seed = settings.seed;
  objective.whole_images = settings.classify;
  objective.cross_entropy.label_smoothing = settings.train.label_smoothing;
  objective.cross_entropy.class_weights = inputs.class_weights;
  objective.teacher_in_train_mode = settings.teacher_in_train_mode;
  objective.connector_epochs = settings.connector_epochs;
  if (!settings.teacher_code.empty()) {
    objective.teacher_code = distill::load_teacher_code(find_weights(settings.teacher_code), *inputs.teacher);
  }
  return std::make_shared<distill::Distiller>(std::move(student), inputs.teacher, settings.terms, objective);
}

models::TapInfo tap_of_spec(models::ModelSpec spec, const std::string& tap) {
  if (spec.classes == 0) spec.classes = 1;  // makes no difference to a tap
  const nn::ParameterDevice meta(kMeta);
  Generator unused;
  return models::make_model(spec, unused)->tap_info(tap);
}

std::shared_ptr<models::Autoencoder> build_autoencoder(const Settings& settings, const models::Model& teacher) {
  const AutoencoderSettings& a = settings.autoencoder;
  const models::TapInfo tap = teacher.tap_info(a.tap);
  models::AutoencoderOptions options;
  options.channels = tap.channels;
  options.code = a.code;
  options.released_code = a.released_code;
  if (a.strides[0] > 0) {
    options.strides = a.strides;
  } else if (!a.released_code) {
    if (settings.model.spec.name.empty()) {
      fail<ConfigError>("autoencoder",
                        "give `model:` (the student, whose tap '{}' decides the strides) or autoencoder.strides",
                        a.student_tap);
    }
    const std::int64_t stride = tap_of_spec(settings.model.spec, a.student_tap).stride;
    if (stride % tap.stride != 0) {
      fail<ConfigError>(
          "autoencoder",
          "the student's tap '{}' has stride {}, finer than {} of the teacher's '{}'; give "
          "autoencoder.strides ([1, 1, 1] keeps the teacher's size, and the student's map is resized to it)",
          a.student_tap, stride, tap.stride, a.tap);
    }
    options.strides = models::autoencoder_strides(stride / tap.stride);
  }
  Generator weights(settings.seed, kWeightStream);
  return std::make_shared<models::Autoencoder>(options, weights);
}

std::unique_ptr<Trainer> make_trainer(Settings settings, const TrainInputs& inputs, const fs::path& run,
                                      RunFolder folder, const std::string& config_text) {
  std::shared_ptr<Task> task;
  if (settings.verb == Verb::kAutoencoder) {
    task = std::make_shared<AutoencoderTask>(settings, inputs.teacher, build_autoencoder(settings, *inputs.teacher),
                                             inputs.val);
  } else {
    auto distiller = build_objective(settings, inputs);
    if (settings.classify) {
      task = std::make_shared<ClassifyTask>(settings, std::move(distiller), inputs.val);
    } else {
      task = std::make_shared<StudentTask>(settings, std::move(distiller), inputs.val);
    }
  }
  auto trainer = std::make_unique<Trainer>(run, std::move(settings), std::move(task), inputs.train, config_text);
  if (folder != RunFolder::kResume) create_run_dir(run, folder == RunFolder::kReplace);  // everything else is checked
  if (folder == RunFolder::kResume && trainer->resume() == 0) {
    log_warn("{} has no checkpoint; starting at step 0", run.string());
    create_run_dir(run, true);
  }
  write_file_atomic(run / "config.yaml", config_text);
  return trainer;
}

TrainInputs open_inputs(const Settings& settings) {
  TrainInputs inputs = open_data(settings);
  if (settings.verb != Verb::kTrain) inputs.teacher = load_teacher(settings, *inputs.val);
  return inputs;
}

TrainOutcome run_training(const Settings& settings, const fs::path& run, RunFolder folder,
                          const std::string& config_text) {
  return make_trainer(settings, open_inputs(settings), run, folder, config_text)->train();
}

int exit_status(const TrainOutcome& outcome) noexcept {
  if (outcome.interrupted) return static_cast<int>(ExitCode::kInterrupted);
  return static_cast<int>(outcome.stopped ? ExitCode::kSaved : ExitCode::kOk);
}

}  // namespace limbeck::apps
