// Messages, number formats of log lines, progress bars, metrics.jsonl.
// Read next: core/json.h.

#include "core/log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.h"
#include "core/file_io.h"

namespace limbeck {
namespace {

LogLevel level_from_environment() noexcept {
  const char* text = std::getenv("LIMBECK_LOG");
  constexpr std::array<const char*, 5> kNames{"debug", "info", "warn", "error", "silent"};
  for (std::size_t i = 0; text != nullptr && i < kNames.size(); ++i) {
    if (std::strcmp(text, kNames[i]) == 0) return static_cast<LogLevel>(i);
  }
  return LogLevel::kInfo;
}

std::atomic<LogLevel>& level_slot() noexcept {
  static std::atomic<LogLevel> level{level_from_environment()};
  return level;
}

/// Guards the streams, the sink and the pointer to the running bar. Recursive: a sink may log.
struct Console {
  std::recursive_mutex mutex;
  LogSink sink;
  Progress* bar = nullptr;
};
Console& console() {
  static Console instance;
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) noexcept { level_slot() = level; }
LogLevel log_level() noexcept { return level_slot(); }

void set_log_sink(LogSink sink) {
  const std::lock_guard lock(console().mutex);
  console().sink = std::move(sink);
}

void log_message(LogLevel level, std::string_view message) {
  if (level < log_level()) return;
  Console& c = console();
  const std::lock_guard lock(c.mutex);
  if (c.sink) {
    c.sink(level, message);
    return;
  }
  if (c.bar != nullptr) c.bar->wipe();
  const bool color = use_color(stderr);
  const char* label = "";
  const char* start = "";
  switch (level) {
    case LogLevel::kDebug:
      label = "debug: ";
      start = "\033[2m";
      break;
    case LogLevel::kWarn:
      label = "warning: ";
      start = "\033[33m";
      break;
    case LogLevel::kError:
      label = "error: ";
      start = "\033[31m";
      break;
    case LogLevel::kInfo:
    case LogLevel::kSilent: break;
  }
  const bool painted = color && *start != '\0';
  const std::string line = fmt::format("{}{}{}{}\n", painted ? start : "", label, painted ? "\033[0m" : "", message);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

bool is_terminal(std::FILE* stream) noexcept {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(stream)) == 1 && term != nullptr && *term != '\0' && std::strcmp(term, "dumb") != 0;
}

bool use_color(std::FILE* stream) noexcept {
  const char* no_color = std::getenv("NO_COLOR");
  return (no_color == nullptr || *no_color == '\0') && is_terminal(stream);
}

// --- formats ------------------------------------------------------------------------------------------------------

std::string format_short(double value) {
  if (!std::isfinite(value) || value == 0) return fmt::format("{:g}", value);
  const double size = std::abs(value);
  if (size >= 999.5 && size < 9999.5) return fmt::format("{:.0f}", value);
  std::string text = fmt::format("{:.3g}", value);
  if (size >= 0.00995 && size < 9999.5) return text;
  // "9.7e-03" -> "9.7e-3"; {:g} falls back to fixed notation near the limits, {:e} never does.
  text = fmt::format("{:.2e}", value);
  const auto e = text.find('e');
  std::string mantissa = text.substr(0, e);
  while (mantissa.back() == '0') mantissa.pop_back();
  if (mantissa.back() == '.') mantissa.pop_back();
  return fmt::format("{}e{}", mantissa, std::atoi(text.c_str() + e + 1));
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e10) return "?";
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t days = s / 86400;
  const std::int64_t hours = s / 3600 % 24;
  const std::int64_t minutes = s / 60 % 60;
  if (days > 0) return fmt::format("{}d {:02}:{:02}:{:02}", days, hours, minutes, s % 60);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, s % 60);
  return fmt::format("{}:{:02}", minutes, s % 60);
}

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{}B", bytes);
  auto value = static_cast<double>(bytes);
  std::string_view units = "KMGTPE";
  value /= 1024;
  while (value >= 1023.5 && units.size() > 1) {
    value /= 1024;
    units.remove_prefix(1);
  }
  return fmt::format("{:.{}f}{}", value, value < 99.95 ? 1 : 0, units[0]);
}

double monotonic_seconds() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace {

std::string format_rate(double per_second) {
  return fmt::format("{:.{}f}", per_second, per_second >= 99.5 ? 0 : per_second >= 1 ? 1 : 2);
}

std::string format_weight(double weight) {
  return weight == std::floor(weight) && std::abs(weight) < 1e4 ? fmt::format("{:.1f}", weight) : format_short(weight);
}

}  // namespace

std::string format_step_line(const StepLine& line) {
  std::string out = fmt::format("iter {}/{} lr {} loss {}", line.iteration, line.total,
                                format_short(line.learning_rate), format_short(line.loss));
  for (const auto& term : line.terms) {
    out += fmt::format(" {} {}{}", term.name, term.weight == 1 ? "" : format_weight(term.weight) + "*",
                       format_short(term.value));
  }
  return out + fmt::format(" | {} it/s data {:.0f}% mem {} eta {}", format_rate(line.steps_per_second),
                           100 * line.data_share, format_bytes(line.memory_bytes), format_duration(line.eta_seconds));
}

// --- progress -----------------------------------------------------------------------------------------------------

void EtaEstimator::mark(double now_seconds, std::int64_t done) {
  // Two marks closer than 1/32 of the window say the same: the newer one replaces the older.
  const std::size_t n = marks_.size();
  if (n >= 2 && marks_[n - 1].time - marks_[n - 2].time < window_ / 32) {
    marks_.back() = {now_seconds, done};
  } else {
    marks_.push_back({now_seconds, done});
  }
  // Keep one mark older than the window, so that it is always covered.
  while (marks_.size() > 2 && marks_[1].time < now_seconds - window_) marks_.erase(marks_.begin());
}

double EtaEstimator::rate() const noexcept {
  if (marks_.size() < 2) return 0;
  const double time = marks_.back().time - marks_.front().time;
  return time > 0 ? static_cast<double>(marks_.back().done - marks_.front().done) / time : 0;
}

double EtaEstimator::remaining() const noexcept {
  const double speed = rate();
  if (speed <= 0) return -1;
  return static_cast<double>(std::max<std::int64_t>(total_ - marks_.back().done, 0)) / speed;
}

Progress::Progress(std::string label, std::int64_t total, std::FILE* stream, double plain_interval)
    : label_(std::move(label)),
      total_(total),
      stream_(stream),
      terminal_(is_terminal(stream)),
      quiet_(log_level() > LogLevel::kInfo),
      plain_interval_(plain_interval),
      start_(monotonic_seconds()),
      last_draw_(start_),
      eta_(total) {
  eta_.mark(start_, 0);
  const std::lock_guard lock(console().mutex);
  if (terminal_ && console().bar == nullptr) console().bar = this;
}

Progress::~Progress() {
  finish();
  const std::lock_guard lock(console().mutex);
  if (console().bar == this) console().bar = nullptr;
}

void Progress::advance(std::int64_t steps, std::string_view note) {
  const std::lock_guard lock(console().mutex);
  done_ += steps;
  note_ = note;
  const double now = monotonic_seconds();
  if (now - last_draw_ < (terminal_ ? 0.1 : plain_interval_)) return;
  eta_.mark(now, done_);
  draw(now, false);
}

void Progress::finish() {
  const std::lock_guard lock(console().mutex);
  if (finished_) return;
  finished_ = true;
  draw(monotonic_seconds(), true);
}

void Progress::wipe() {
  const std::lock_guard lock(console().mutex);
  if (!terminal_ || !drawn_ || finished_) return;
  std::fputs("\r\033[K", stream_);
  std::fflush(stream_);
  drawn_ = false;
}

void Progress::draw(double now, bool last) {
  if (quiet_) return;
  last_draw_ = now;
  const bool known = total_ > 0;  // else the end is: frames on standard input
  const double percent =
      known ? std::min(100.0, 100.0 * static_cast<double>(done_) / static_cast<double>(total_)) : 100.0;
  const double elapsed = now - start_;
  const double rate = last && elapsed > 0 ? static_cast<double>(done_) / elapsed : eta_.rate();
  std::string numbers = known ? fmt::format("{}/{} {:.0f}%", done_, total_, percent) : std::to_string(done_);
  numbers += fmt::format(" {}/s", format_rate(rate));
  if (last || known)
    numbers += fmt::format(" {} {}", last ? "took" : "eta", format_duration(last ? elapsed : eta_.remaining()));
  if (!note_.empty()) numbers += " " + note_;
  if (!terminal_) {
    fmt::print(stream_, "{} {}\n", label_, numbers);
    std::fflush(stream_);
    return;
  }
  winsize size{};
  const std::size_t width = ::ioctl(::fileno(stream_), TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
  constexpr std::size_t kBar = 24;
  const auto full = known ? static_cast<std::size_t>(percent / 100 * static_cast<double>(kBar)) : 0;
  std::string line =
      fmt::format("{} [{}{}] {}", label_, std::string(full, '#'), std::string(kBar - full, '-'), numbers);
  if (line.size() > width - 1) line.resize(width - 1);  // a wrapped line could not be wiped
  fmt::print(stream_, "\r\033[K{}{}", line, last ? "\n" : "");
  std::fflush(stream_);
  drawn_ = true;
}

// --- metrics.jsonl ------------------------------------------------------------------------------------------------

namespace {

[[noreturn]] void fail_writing(const std::filesystem::path& path, int error_number) {
  fail("log", "cannot write {}: {}", path.string(), std::generic_category().message(error_number));
}

/// Length of the file up to and including the last newline.
off_t whole_lines(int descriptor, const std::filesystem::path& path) {
  off_t end = ::lseek(descriptor, 0, SEEK_END);
  std::array<char, 4096> block{};
  while (end > 0) {
    const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(block.size()));
    const ssize_t got = ::pread(descriptor, block.data(), static_cast<std::size_t>(end - begin), begin);
    if (got != end - begin) fail_writing(path, got < 0 ? errno : EIO);
    for (off_t i = got; i > 0; --i) {
      if (block[static_cast<std::size_t>(i - 1)] == '\n') return begin + i;
    }
    end = begin;
  }
  return 0;
}

}  // namespace

JsonlWriter::JsonlWriter(const std::filesystem::path& path) : path_(path), file_(nullptr) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor < 0) fail_writing(path, errno);
  try {
    if (::lseek(descriptor, 0, SEEK_END) > 0 && ::ftruncate(descriptor, whole_lines(descriptor, path)) != 0) {
      fail_writing(path, errno);
    }
    file_ = ::fdopen(descriptor, "ab");
    if (file_ == nullptr) fail_writing(path, errno);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
}

JsonlWriter::~JsonlWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

void JsonlWriter::write(const JsonObject& object) {
  const std::string line = object.str() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
    fail_writing(path_, errno);
}

std::int64_t truncate_jsonl(const std::filesystem::path& path, std::string_view key, double last) {
  if (!std::filesystem::exists(path)) return 0;
  const std::string text = read_file(path);
  std::string kept;
  std::int64_t dropped = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == std::string_view::npos ? rest.size() : newline + 1);
    const auto json = nlohmann::json::parse(line, nullptr, false);
    bool keep = newline != std::string_view::npos && json.is_object();
    if (keep) {
      const auto it = json.find(std::string(key));
      keep = it == json.end() || !it->is_number() || it->get<double>() <= last;
    }
    if (keep) {
      kept.append(line).push_back('\n');
    } else {
      ++dropped;
    }
  }
  if (dropped > 0) write_file_atomic(path, kept);
  return dropped;
}

}  // namespace limbeck
