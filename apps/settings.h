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
  std::string init;           ///< weights to start from: .safetensors, step folder or run folder; empty: random
  bool init_strict = false;   ///< student: missing entries (the head) are allowed
  double min_miou = 0;        ///< teacher gate in percent; 0: off
  std::int64_t gate_images = 50;
};

/// `data:`.
struct DataSettings {
  datasets::DatasetSpec train;
  datasets::DatasetSpec val;
  datasets::TransformOptions transform;       ///< of training samples
  std::string normalisation = "imagenet";     ///< imagenet | symmetric | bgr_mean
  std::int64_t eval_h = 0, eval_w = 0;        ///< resize for evaluation; 0: own size
  std::int64_t eval_short_side = 0;           ///< picture and labels of this shorter side for evaluation; 0: own size
  std::int64_t eval_crop_h = 0, eval_crop_w = 0;  ///< then their middle; 0: all of it
  std::int64_t workers = 2;
};

/// `train:`.
struct TrainSettings {
  std::int64_t steps = 0;
  std::int64_t epochs = 0;          ///< alternative to steps
  std::int64_t batch = 8;
  std::int64_t accumulate = 1;      ///< batches per optimizer step
  std::string precision = "f32";    ///< f32 | bf16
  std::string optimizer = "sgd";    ///< sgd | adamw
  double lr = 0.01;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 5e-4;
  bool decay_vectors = true;        ///< weight decay on biases and batch-norm parameters too
  double head_lr = 1.0;             ///< learning-rate multiplier of everything outside the backbone
  std::string schedule = "poly";    ///< poly | cosine | step | constant
  double power = 0.9;
  double min_lr = 0;
  std::int64_t warmup = 0;          ///< steps
  std::vector<std::int64_t> milestones;  ///< step schedule
  double gamma = 0.1;               ///< step schedule
  double clip_norm = 0;             ///< 0: off
  double ema = 0;                   ///< decay of the weight average; 0: off
  double label_smoothing = 0;
  std::string class_weights = "none";  ///< none | median_frequency | sqrt_median_frequency
  bool align_corners = false;
  std::int64_t eval_every = 0;      ///< steps; 0: only at the end
  std::int64_t save_every = 0;      ///< steps; 0: only at the end
  std::int64_t keep = 2;            ///< checkpoints kept besides the best
  std::int64_t log_every = 20;
  std::int64_t pictures = 4;        ///< validation pictures in the report
};

/// A whole training or distillation run.
struct Settings {
  std::uint64_t seed = 0;
  ModelSettings model;
  ModelSettings teacher;                ///< distill only
  DataSettings data;
  TrainSettings train;
  std::vector<distill::Term> terms;     ///< distill only
  std::string teacher_code;             ///< distill.autoencoder: whose encoder gives the teacher's tap "code"; empty: none
  distill::WeightSchedule ce_weight{1.0};
  double aux_weight = 0.4;
};

/// Reads the whole configuration. Unknown keys are left for Config::check_all_used().
/// Throws ConfigError naming file, line and key.
[[nodiscard]] Settings read_settings(const Config& config, bool distillation);

/// The `data:` section alone, for eval and check-data.
[[nodiscard]] DataSettings read_data(const Config& config);

/// How networks are scored on the validation split: size, crop and input scaling of `data:`.
[[nodiscard]] InferenceOptions evaluation_options(const DataSettings& data, bool align_corners);

/// The classes the configuration gives, or those of the data set.
[[nodiscard]] datasets::Normalisation parse_normalisation(const std::string& name);

}  // namespace limbeck::apps
