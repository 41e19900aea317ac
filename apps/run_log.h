// What this is: what a training run says while it runs: the log line, metrics.jsonl, TensorBoard, and the speed they quote.
// Read next: trainer.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/tensorboard.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {

/// One optimizer step as the log sees it.
struct StepResult {
  double loss = 0;
  double lr = 0;
  std::vector<StepLine::Term> terms;  ///< means over the accumulated batches
  std::vector<std::string> samples;   ///< names, for the message about a non-finite loss
  double wait_seconds = 0;            ///< for data
  double end_seconds = 0;             ///< when the step had been queued, by monotonic_seconds()
  std::size_t peak_bytes = 0;         ///< most tensor memory in use so far
};

class RunLog {
 public:
  /// Appends to the files in `run`; the clock starts at step `first` of `total`.
  RunLog(const std::filesystem::path& run, std::int64_t first, std::int64_t total, std::int64_t every);

  /// `step` counts from 0. Writes every `every` steps, and the first and the last one.
  void step(std::int64_t step, const StepResult& result);
  /// `metrics` of a validation after `step` steps; `tag` names the score for TensorBoard.
  void validation(std::int64_t step, JsonObject metrics, const std::string& tag, double score);

 private:
  JsonlWriter metrics_;
  TensorboardWriter board_;
  EtaEstimator eta_;
  std::int64_t first_, total_, every_;
  double window_start_;
  double window_wait_ = 0;
};

}  // namespace limbeck::apps
