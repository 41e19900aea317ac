// What this is: messages for people (stderr) and metrics for programs (metrics.jsonl).
// What it is not: error reporting; errors are exceptions (core/error.h) and main() prints them.
// stdout is left to results (tables, --json); a pipe never gets log lines.
// Read next: core/json.h.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace limbeck {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError, kSilent };

/// Messages below `level` are dropped. Start value: LIMBECK_LOG (debug, info, warn, error, silent), else info.
void set_log_level(LogLevel level) noexcept;
[[nodiscard]] LogLevel log_level() noexcept;
/// Receives every message instead of stderr (tests, embedding programs); an empty function restores stderr.
using LogSink = std::function<void(LogLevel, std::string_view message)>;
void set_log_sink(LogSink sink);
/// One line to stderr, thread safe. A running progress bar is wiped first.
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kDebug) log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kInfo) log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kWarn) log_message(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kError) log_message(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

/// True if `stream` is a terminal that understands control sequences (TERM is set and not "dumb").
[[nodiscard]] bool is_terminal(std::FILE* stream) noexcept;
/// True if colours may be written to `stream`: a terminal, and NO_COLOR is unset or empty.
[[nodiscard]] bool use_color(std::FILE* stream) noexcept;

/// "9.7e-3", "0.83", "12", "1.2e5": at most three significant digits, no padding; for log lines.
[[nodiscard]] std::string format_short(double value);
/// Seconds as "0:07", "3:21", "1:02:03", "3d 04:05:06"; "?" for a negative or non-finite value.
[[nodiscard]] std::string format_duration(double seconds);
/// Bytes as "512B", "1.8G" (powers of 1024).
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
/// "1 file", "3 files"; for nouns that take an s.
template <std::integral T>
[[nodiscard]] std::string format_count(T count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

/// Seconds on a clock that never jumps.
[[nodiscard]] double monotonic_seconds() noexcept;

/// Speed and remaining time from (time, steps done) marks. The speed is an average over about the last `window`
/// seconds, so that a slow start does not spoil the estimate for hours; 0 marks in it: the overall mean.
class EtaEstimator {
 public:
  explicit EtaEstimator(std::int64_t total, double window_seconds = 60.0) : total_(total), window_(window_seconds) {}
  /// Call whenever `done` grows; the first call is the start.
  void mark(double now_seconds, std::int64_t done);
  /// Steps per second; 0 before the second mark.
  [[nodiscard]] double rate() const noexcept;
  /// Seconds left; negative while unknown.
  [[nodiscard]] double remaining() const noexcept;

 private:
  struct Mark {
    double time;
    std::int64_t done;
  };
  std::int64_t total_;
  double window_;
  std::vector<Mark> marks_;  // oldest first; thinned out, see mark()
};

/// Contents of one training log line.
struct StepLine {
  struct Term {
    std::string name;
    double value = 0;
    double weight = 1;  ///< printed as "3.0*0.07" unless 1
  };
  std::int64_t iteration = 0;
  std::int64_t total = 0;
  double learning_rate = 0;
  double loss = 0;
  std::vector<Term> terms;
  double steps_per_second = 0;
  double data_share = 0;  ///< [0, 1]: part of the time spent waiting for data
  std::uint64_t memory_bytes = 0;
  double eta_seconds = -1;
};

/// `iter 1200/40000 lr 9.7e-3 loss 0.83 ce 0.61 cwd 3.0*0.07 | 3.1 it/s data 2% mem 1.8G eta 3:21:10`
[[nodiscard]] std::string format_step_line(const StepLine& line);

/// Progress of a long job: a bar that redraws itself on a terminal, otherwise one plain line now and then.
///
///   Progress progress("check-data", images.size());
///   for (...) { ...; progress.advance(); }
///   progress.finish();
class Progress {
 public:
  /// `stream` is stderr except in tests. `plain_interval`: seconds between lines when there is no terminal.
  Progress(std::string label, std::int64_t total, std::FILE* stream = stderr, double plain_interval = 10.0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  /// Adds `steps`; `note` is shown behind the numbers.
  void advance(std::int64_t steps = 1, std::string_view note = {});
  /// Draws the final state. Called by the destructor too.
  void finish();
  /// Removes the bar from the terminal until the next advance(); log_message calls it.
  void wipe();

 private:
  void draw(double now, bool last);
  std::string label_;
  std::string note_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::FILE* stream_;
  bool terminal_;
  bool quiet_;
  bool finished_ = false;
  bool drawn_ = false;
  double plain_interval_;
  double start_;
  double last_draw_;
  EtaEstimator eta_;
};

/// Appends JSON objects to a file, one per line, flushed after each, so that `tail -f` and a crash both see whole lines.
class JsonlWriter {
 public:
  /// Opens for appending. A last line without newline (the process was killed while writing it) is cut off first.
  /// Throws Error naming path and reason.
  explicit JsonlWriter(const std::filesystem::path& path);
  JsonlWriter(const JsonlWriter&) = delete;
  JsonlWriter& operator=(const JsonlWriter&) = delete;
  ~JsonlWriter();
  /// Throws Error naming path and reason (disk full).
  void write(const JsonObject& object);

 private:
  std::filesystem::path path_;
  std::FILE* file_;
};

/// For resuming from a checkpoint: drops the lines whose number `key` is greater than `last` (they will be produced
/// again), and torn lines. Lines without the key stay. Atomic. Returns the number of dropped lines; a missing file is fine.
std::int64_t truncate_jsonl(const std::filesystem::path& path, std::string_view key, double last);

}  // namespace limbeck
