// What this is: the training loop of every verb that trains. It owns the data loader, the optimizer, the schedule, the
//   checkpoints and the log; what is trained comes from a Task.
// Note [bit-exact resume]
//   Everything random is a function of (seed, step): the sample order and augmentation of (seed, epoch, index), dropout of
//   (seed, step). A checkpoint therefore needs weights, optimizer state, averages and the step number; a run that was
//   killed and resumed gives the same bits as one that was not.
// Note [losses read late]
//   A loss is on the device where it was computed, and looking at it means waiting for it. On a GPU the loop therefore queues a
//   copy and goes on; four steps later the number is read, checked and logged. Before a validation and before a checkpoint
//   all numbers are read, so that nothing is saved behind a loss that is not finite. On the CPU it is read at once.
// Read next: task.h, trainer.cpp, train_run.h.
#pragma once

#include <deque>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/run_log.h"
#include "apps/settings.h"
#include "apps/step_recorder.h"
#include "apps/task.h"
#include "core/readback.h"
#include "datasets/loader.h"
#include "nn/ema.h"
#include "nn/optim.h"

namespace limbeck::apps {

struct TrainOutcome {
  double best_score = 0;  ///< percent, on the validation set; see Task::score_name()
  double last_score = 0;
  std::int64_t steps = 0;
  double seconds = 0;
  double seconds_per_step = 0;  ///< median over the steps done here, data included, validation not; NaN without a step
  std::size_t peak_bytes = 0;   ///< most tensor memory in use during a step, whatever else the process holds included
  std::optional<Evaluation> last;  ///< the validation at the last step, unless an earlier process made it
  bool stopped = false;            ///< SIGTERM or SIGUSR1: saved, to be resumed (exit status 75)
  bool interrupted = false;        ///< Ctrl-C: saved (exit status 130)
};

/// Backbone and head, each in groups of its own for what has weight decay and what has not; layers of distillation terms are a
/// third part where their rate is constant.
/// Throws: ConfigError for a constant rate of layers that are not there.
[[nodiscard]] std::unique_ptr<nn::Optimizer> build_optimizer(const TrainSettings& settings, const nn::Module& module);

class Trainer {
 public:
  /// `run` is a folder once resume() or train() is called. `config_text` is the merged configuration, stored in checkpoints.
  Trainer(std::filesystem::path run, Settings settings, std::shared_ptr<Task> task,
          std::shared_ptr<const datasets::Dataset> train, std::string config_text);

  /// Continues from the newest checkpoint of the run; returns its step (0 when there is none).
  std::int64_t resume();
  /// Trains to the end, validates, writes best/ and report.html.
  TrainOutcome train();

  [[nodiscard]] Task& task() noexcept { return *task_; }
  [[nodiscard]] std::int64_t total_steps() const noexcept { return total_; }
  /// While it lives, the result's weights are their average; null where the settings ask for none.
  [[nodiscard]] std::unique_ptr<nn::EmaScope> average() const {
    return ema_ ? std::make_unique<nn::EmaScope>(*ema_) : nullptr;
  }

 private:
  /// A step whose losses may still be on their way from the device; see Note [losses read late].
  struct InFlight {
    std::int64_t step = 0;
    StepResult result;
    std::vector<std::size_t> numbers;  ///< per accumulated batch: the loss and its terms
    bool norm = false;                 ///< the last number is the norm of the gradients
    Readback values;
  };

  void train_step(std::int64_t step);
  [[nodiscard]] StepOutputs work(std::int64_t step, const StepRecorder::Source& inputs, StepResult& result);
  static void name_terms(const StepOutputs& out, StepResult& result);
  /// Reads and logs the oldest steps until only `most` are in flight.
  void settle(std::size_t most);
  void add_numbers(std::span<const double> values, StepResult& result) const;
  void check_finite(std::int64_t step, const StepResult& result) const;
  [[nodiscard]] std::size_t peak_memory() const;
  void reset_peak_memory();
  void save(const std::filesystem::path& folder, std::int64_t step);
  std::optional<Evaluation> validate(std::int64_t step);
  void write_run_json(const TrainOutcome* outcome) const;
  void start();
  [[nodiscard]] TrainOutcome finish(TrainOutcome outcome, double start_seconds);

  std::filesystem::path run_;
  Settings settings_;
  std::shared_ptr<Task> task_;
  std::shared_ptr<const datasets::Dataset> train_;
  std::string config_text_;

  std::unique_ptr<nn::Optimizer> optimizer_;
  Device device_;  // of what is trained
  datasets::Loader loader_;
  std::unique_ptr<nn::Ema> ema_;
  std::unique_ptr<StepRecorder> recorder_;
  std::deque<InFlight> in_flight_;
  static constexpr double kNoScore = -std::numeric_limits<double>::infinity();
  std::unique_ptr<RunLog> log_;  // made when training starts
  std::int64_t total_ = 0;
  std::int64_t first_step_ = 0;
  double best_score_ = kNoScore;
  double last_score_ = kNoScore;
  std::vector<double> step_seconds_;
  std::size_t peak_bytes_ = 0;
};

}  // namespace limbeck::apps
