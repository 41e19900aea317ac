// What this is: the training loop of every verb that trains. It owns the data loader, the optimizer, the schedule, the
//   checkpoints and the log; the objective comes from distill::Distiller.
// Note [bit-exact resume]
//   Everything random is a function of (seed, step): the sample order and augmentation of (seed, epoch, index), dropout of
//   (seed, step). A checkpoint therefore needs weights, optimizer state, averages and the step number; a run that was
//   killed and resumed gives the same bits as one that was not.
// Read next: trainer.cpp, verb_train.cpp.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/evaluate.h"
#include "apps/settings.h"
#include "datasets/loader.h"
#include "distill/distiller.h"
#include "nn/ema.h"
#include "nn/optim.h"

namespace limbeck::apps {

struct TrainOutcome {
  double best_miou = 0;        ///< percent, on the validation set
  double last_miou = 0;
  std::int64_t steps = 0;
  double seconds = 0;
  double seconds_per_step = 0;  ///< median over the steps done here, data included, validation not; NaN without a step
  std::size_t peak_bytes = 0;   ///< most tensor memory in use during a step, whatever else the process holds included
  std::optional<Evaluation> last;  ///< the validation at the last step, unless an earlier process made it
  bool stopped = false;        ///< SIGTERM or SIGUSR1: saved, to be resumed (exit status 75)
  bool interrupted = false;    ///< Ctrl-C: saved (exit status 130)
};

class Trainer {
 public:
  /// `run` exists and is writable. `config_text` is the merged configuration, stored in checkpoints.
  Trainer(std::filesystem::path run, Settings settings, std::shared_ptr<distill::Distiller> distiller,
          std::shared_ptr<const datasets::Dataset> train, std::shared_ptr<const datasets::Dataset> val,
          std::string config_text);

  /// Continues from the newest checkpoint of the run; returns its step (0 when there is none).
  std::int64_t resume();
  /// Trains to the end, evaluates, writes best/ and report.html.
  TrainOutcome train();

  /// Scores the student as it is now (the weight average, where there is one) on any data set.
  [[nodiscard]] Evaluation evaluate_student(const datasets::Dataset& dataset, const PredictionHook& hook = {});

  [[nodiscard]] InferenceOptions inference_options() const;
  [[nodiscard]] distill::Distiller& distiller() noexcept { return *distiller_; }
  [[nodiscard]] std::int64_t total_steps() const noexcept { return total_; }

 private:
  struct StepResult;
  [[nodiscard]] StepResult train_step(std::int64_t step);
  void log_step(std::int64_t step, const StepResult& result);
  void check_finite(std::int64_t step, const StepResult& result) const;
  void save(const std::filesystem::path& folder, std::int64_t step);
  Evaluation validate(std::int64_t step);
  void write_run_json(const TrainOutcome* outcome) const;
  [[nodiscard]] std::map<std::string, std::string> model_metadata() const;

  std::filesystem::path run_;
  Settings settings_;
  std::shared_ptr<distill::Distiller> distiller_;
  std::shared_ptr<const datasets::Dataset> train_;
  std::shared_ptr<const datasets::Dataset> val_;
  std::string config_text_;

  datasets::Loader loader_;
  std::unique_ptr<nn::Optimizer> optimizer_;
  std::unique_ptr<nn::Ema> ema_;
  struct Log;
  std::shared_ptr<Log> log_;  // metrics.jsonl, TensorBoard, speed; made when training starts
  std::int64_t total_ = 0;
  std::int64_t first_step_ = 0;
  double best_miou_ = -1;
  double last_miou_ = -1;
  std::vector<double> step_seconds_;
  std::size_t peak_bytes_ = 0;
};

}  // namespace limbeck::apps
