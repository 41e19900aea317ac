#include "apps/run_log.h"

#include <algorithm>
#include <utility>

namespace limbeck::apps {

RunLog::RunLog(const std::filesystem::path& run, std::int64_t first, std::int64_t total, std::int64_t every)
    : metrics_(run / "metrics.jsonl"),
      board_(run),
      eta_(total),
      first_(first),
      total_(total),
      every_(every),
      window_start_(monotonic_seconds()) {
  eta_.mark(window_start_, first);
}

void RunLog::step(std::int64_t step, const StepResult& result) {
  window_wait_ += result.wait_seconds;
  if ((step + 1) % every_ != 0 && step + 1 != total_ && step != first_) return;
  const double now = result.end_seconds;
  eta_.mark(now, step + 1);
  StepLine line;
  line.iteration = step + 1;
  line.total = total_;
  line.learning_rate = result.lr;
  line.loss = result.loss;
  line.terms = result.terms;
  line.steps_per_second = eta_.rate();
  line.data_share = window_wait_ / std::max(now - window_start_, 1e-9);
  line.memory_bytes = result.peak_bytes;
  line.eta_seconds = eta_.remaining();
  log_info("{}", format_step_line(line));
  window_start_ = now;
  window_wait_ = 0;

  JsonObject metrics;
  metrics.add("iter", line.iteration).add("lr", result.lr).add("loss", result.loss);
  board_.scalar("lr", result.lr, line.iteration);
  board_.scalar("train/loss", result.loss, line.iteration);
  for (const auto& term : result.terms) {
    metrics.add("loss/" + term.name, term.value).add("weight/" + term.name, term.weight);
    board_.scalar("train/" + term.name, term.value, line.iteration);
  }
  metrics.add("steps_per_second", line.steps_per_second).add("data_share", line.data_share);
  metrics_.write(metrics);
  board_.flush();
}

void RunLog::validation(std::int64_t step, JsonObject metrics, const std::string& tag, double score) {
  metrics.add("iter", step);
  metrics_.write(metrics);
  board_.scalar(tag, score, step);
}

}  // namespace limbeck::apps
