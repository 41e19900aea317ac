// What this is: the parts of a training run, from a configuration to a Trainer: what `train`, `autoencoder`, `distill`, `run` and
//   `ablate` share.
// What it is not: the loop (trainer.h) or the keys (settings.h).
// Read next: verb_train.cpp (one run), verb_ablate.cpp (many).
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/settings.h"
#include "apps/trainer.h"
#include "core/config.h"
#include "models/autoencoder.h"

namespace limbeck::apps {

/// What a run reads before its first step. Runs that ask for the same may share it.
struct TrainInputs {
  std::shared_ptr<const datasets::Dataset> train;
  std::shared_ptr<const datasets::Dataset> val;
  Tensor class_weights;                    ///< undefined unless train.class_weights asks for them
  std::shared_ptr<models::Model> teacher;  ///< frozen; null in a run without distillation
};

/// Opens both splits, looks at some samples of each, and counts the classes where the settings ask for class weights.
/// Leaves the teacher null. Throws DataError naming the file.
[[nodiscard]] TrainInputs open_data(const Settings& settings);

/// Opens the parts of the data set that are scored in the end: a mistyped one is an error before the training, not after it.
void require_splits(datasets::DatasetSpec val, const std::vector<std::string>& splits);

/// The frozen teacher of `settings`, after it has passed its gate on `val`.
/// Throws WeightsError when it is another network, has other classes or another input scaling, or misses the gate.
[[nodiscard]] std::shared_ptr<models::Model> load_teacher(const Settings& settings, const datasets::Dataset& val);

/// Data, and the teacher where the verb has one.
[[nodiscard]] TrainInputs open_inputs(const Settings& settings);

/// Student and terms as one objective. Sets settings.model.spec.classes where the configuration leaves it open.
[[nodiscard]] std::shared_ptr<distill::Distiller> build_objective(Settings& settings, const TrainInputs& inputs);

/// What a tap of a network will be, found on the meta device. Throws ConfigError listing the taps.
[[nodiscard]] models::TapInfo tap_of_spec(models::ModelSpec spec, const std::string& tap);

/// The autoencoder for a tap of `teacher`. Throws ConfigError for an unknown tap (with the list) or strides that cannot be.
[[nodiscard]] std::shared_ptr<models::Autoencoder> build_autoencoder(const Settings& settings,
                                                                     const models::Model& teacher);

enum class RunFolder : std::uint8_t {
  kNew,      ///< refuse a folder that holds a run
  kReplace,  ///< remove the run that is there
  kResume    ///< go on from its newest checkpoint, or start when there is none
};

/// Everything up to the first step: task, folder, resuming, and config.yaml, which gets `config_text`.
[[nodiscard]] std::unique_ptr<Trainer> make_trainer(Settings settings, const TrainInputs& inputs,
                                                    const std::filesystem::path& run, RunFolder folder,
                                                    const std::string& config_text);

/// A whole run: inputs, training, validation, report.
TrainOutcome run_training(const Settings& settings, const std::filesystem::path& run, RunFolder folder,
                          const std::string& config_text);

/// 0, or the documented status of a run that a signal ended.
[[nodiscard]] int exit_status(const TrainOutcome& outcome) noexcept;

}  // namespace limbeck::apps
