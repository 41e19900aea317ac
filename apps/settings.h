// What this is: the schema of the configuration: every key, its default and its range, read into plain structs.
// What it is not: the presets (apps/configs/*.yaml) or the loop (trainer.h).
// Read next: apps/README.md (the table of keys), trainer.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/evaluate.h"
#include "core/config.h"
#include "datasets/dataset.h"
#include "datasets/transforms.h"
#include "distill/distiller.h"
#include "models/zoo.h"

namespace limbeck::apps {

/// `model:` and `teacher:`.
struct ModelSettings {
  models::ModelSpec spec;
  std::string init;          ///< weights to start from: .safetensors, step folder or run folder; empty: random
  bool init_strict = false;  ///< student: missing entries (the head) are allowed
  double min_score = 0;      ///< teacher gate in percent of its task (min_miou, min_top1); 0: off
  std::int64_t gate_images = 50;
};

/// `autoencoder:`, of the verb with that name.
struct AutoencoderSettings {
  std::string tap = "aspp";               ///< of the teacher
  std::string student_tap = "head";       ///< the code gets its stride, unless `strides` says otherwise
  std::int64_t code = 0;                  ///< channels; 0: half of the tap's
  std::array<std::int64_t, 3> strides{};  ///< of the encoder; zeros: from the strides of the two taps
  bool released_code = false;             ///< variant: see Note [two forms] in models/autoencoder.h
  double alpha = 1e-7;                    ///< weight of the code's magnitudes
};

/// `data:`.
struct DataSettings {
  datasets::DatasetSpec train;
  datasets::DatasetSpec val;
  datasets::TransformOptions transform;    ///< of training samples
  std::string normalisation = "imagenet";  ///< imagenet | symmetric | bgr_mean
  std::int64_t eval_h = 0, eval_w = 0;     ///< resize for evaluation; 0: own size
  std::int64_t eval_short_side = 0;        ///< picture and labels of this shorter side for evaluation; 0: own size
  std::int64_t eval_crop_h = 0, eval_crop_w = 0;                         ///< then their middle; 0: all of it
  datasets::AbsentClasses eval_absent = datasets::AbsentClasses::kSkip;  ///< in the mIoU
  std::int64_t workers = 2;
  bool keep_in_memory = false;  ///< the training split, 4 bytes per pixel
  std::string bytes = "auto";   ///< auto | on | off: training pictures as bytes until they are where the network is
};

/// `train:`.
struct TrainSettings {
  std::int64_t steps = 0;
  std::int64_t epochs = 0;  ///< alternative to steps
  std::int64_t batch = 8;
  std::int64_t accumulate = 1;      ///< batches per optimizer step
  std::string precision = "f32";    ///< f32 | bf16
  std::string cuda_graph = "auto";  ///< auto | on | off: see step_recorder.h
  bool deterministic = false;       ///< on a GPU: nothing is chosen by timing (core/choices.h)
  std::string optimizer = "sgd";    ///< sgd | adamw
  double lr = 0.01;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 5e-4;
  bool decay_vectors = true;      ///< weight decay on biases and batch-norm parameters too
  bool decay_depthwise = true;    ///< weight decay on depthwise kernels too
  double head_lr = 1.0;           ///< learning-rate multiplier of everything outside the backbone
  bool constant_term_lr = false;  ///< layers of distillation terms keep lr * head_lr whatever the schedule says
  std::string schedule = "poly";  ///< poly | cosine | step | constant
  double power = 0.9;
  double min_lr = 0;
  std::int64_t warmup = 0;               ///< steps
  std::vector<std::int64_t> milestones;  ///< step schedule
  double gamma = 0.1;                    ///< step schedule
  double clip_norm = 0;                  ///< 0: off
  double ema = 0;                        ///< decay of the weight average; 0: off
  double label_smoothing = 0;
  std::string class_weights = "none";  ///< none | median_frequency | sqrt_median_frequency
  bool align_corners = false;
  std::int64_t eval_every = 0;  ///< steps; 0: only at the end
  std::int64_t save_every = 0;  ///< steps; 0: only at the end
  std::int64_t keep = 2;        ///< checkpoints kept besides the best
  std::int64_t log_every = 20;
  std::int64_t pictures = 4;  ///< validation pictures in the report
};

/// The verbs that train.
enum class Verb : std::uint8_t { kTrain, kAutoencoder, kDistill };
/// "train", "autoencoder", "distill".
[[nodiscard]] const char* name_of(Verb verb) noexcept;

/// A whole run of one of these verbs.
struct Settings {
  Verb verb = Verb::kTrain;
  bool classify = false;  ///< task: classify; otherwise segment
  std::uint64_t seed = 0;
  ModelSettings model;              ///< autoencoder: the student that the code is for; its name may be empty
  ModelSettings teacher;            ///< not for train
  AutoencoderSettings autoencoder;  ///< autoencoder only
  DataSettings data;
  TrainSettings train;
  std::vector<distill::Term> terms;  ///< distill only
  std::string teacher_code;          ///< distill.autoencoder: whose encoder gives the teacher's tap "code"; empty: none
  bool teacher_in_train_mode = false;  ///< distill.variant: released-code
  std::int64_t connector_epochs = 0;   ///< distill.connector_epochs: so many epochs for the layers of terms alone
  distill::WeightSchedule ce_weight{1.0};
  double aux_weight = 0.4;
};

/// Reads the whole configuration. Unknown keys are left for Config::check_all_used().
/// Throws ConfigError naming file, line and key.
[[nodiscard]] Settings read_settings(const Config& config, Verb verb);

/// The `data:` section alone, for eval and check-data.
[[nodiscard]] DataSettings read_data(const Config& config);

/// How networks are scored on the validation split: size, crop and input scaling of `data:`.
[[nodiscard]] InferenceOptions evaluation_options(const DataSettings& data, bool align_corners);

/// The classes the configuration gives, or those of the data set.
[[nodiscard]] datasets::Normalisation parse_normalisation(const std::string& name);

}  // namespace limbeck::apps
