// What this is: Task, what a run trains: the objective of one step, the score of the result, the contents of its weight file.
//   The loop around it (trainer.h) knows no network and no loss.
// What it is not: a training verb; student_task.h, classify_task.h and autoencoder_task.h are the tasks there are.
// Read next: trainer.h, student_task.h.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/evaluate.h"
#include "core/json.h"
#include "core/tensor.h"
#include "distill/distiller.h"
#include "nn/module.h"

namespace limbeck::apps {

/// What a validation found.
struct Score {
  double value = 0;                      ///< percent, higher is better: decides what best/ holds
  std::string summary;                   ///< for the log
  JsonObject metrics;                    ///< for metrics.jsonl
  std::optional<Evaluation> evaluation;  ///< of tasks that segment
};

class Task {
 public:
  virtual ~Task() = default;

  /// Everything that is trained: its parameters go to the optimizer, its state into checkpoints.
  [[nodiscard]] virtual nn::Module& trained() = 0;
  /// The part of it that is kept in the end: model.safetensors, and what a weight average is taken of.
  [[nodiscard]] virtual nn::Module& result() = 0;
  /// Name of result() inside trained(), with its dot; empty when they are the same.
  [[nodiscard]] virtual std::string result_prefix() const = 0;
  /// Goes into the weight file: what somebody needs besides the numbers to use the result.
  [[nodiscard]] virtual std::map<std::string, std::string> metadata() const = 0;

  /// The objective for one batch at optimizer step `step` of `total`.
  [[nodiscard]] virtual distill::Objective forward(const Tensor& images, const Tensor& labels, std::int64_t step,
                                                   std::int64_t total) = 0;
  /// Steps of equal phase do the same work, with other numbers; these two are for recordings (core/step_graph.h).
  [[nodiscard]] virtual std::string phase(std::int64_t /*step*/, std::int64_t /*total*/) const { return {}; }
  /// The weight at any step of an objective's term, named by TermValue::id.
  [[nodiscard]] virtual double weight_of(std::size_t /*id*/, std::int64_t /*step*/, std::int64_t /*total*/) const {
    return 1.0;
  }

  /// Optimizer steps in one pass over the data; told once, before training.
  virtual void set_steps_per_epoch(double /*steps*/) {}
  /// Called after every optimizer step, and recorded with it.
  virtual void after_step(std::int64_t /*step*/, std::int64_t /*total*/) {}

  /// "miou": the key of the score in run.json and metrics.jsonl, behind best_, last_ and val_.
  [[nodiscard]] virtual std::string score_name() const = 0;
  /// Scores result() as it is now. `pictures`: a folder for pictures; empty for none.
  [[nodiscard]] virtual Score validate(const std::filesystem::path& pictures) = 0;

  /// The objective in words, one line per term.
  [[nodiscard]] virtual std::vector<std::string> describe() const = 0;
  /// Adds what is worth knowing to run.json.
  virtual void add_facts(JsonObject& facts) const = 0;
};

}  // namespace limbeck::apps
