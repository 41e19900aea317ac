// Formats of log lines, ETA, progress without a terminal, metrics.jsonl, JSON text.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file_io.h"
#include "core/log.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::TempDir;

TEST_SUITE_BEGIN("log");

namespace {

/// Sets an environment variable for a scope; null removes it.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) {
      had_ = true;
      old_ = old;
    }
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;
  ~ScopedEnv() { had_ ? ::setenv(name_, old_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  bool had_ = false;
  std::string old_;
};

/// A stream that ends up in a string.
class Capture {
 public:
  Capture() : file_(std::tmpfile()) { REQUIRE(file_ != nullptr); }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() { std::fclose(file_); }
  [[nodiscard]] std::FILE* stream() const { return file_; }
  [[nodiscard]] std::string text() const {
    std::string out;
    std::rewind(file_);
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) out += static_cast<char>(c);
    return out;
  }

 private:
  std::FILE* file_;
};

}  // namespace

TEST_CASE("levels filter, and the sink sees level and text") {
  const LogLevel before = log_level();
  std::vector<std::string> seen;
  set_log_sink([&](LogLevel level, std::string_view text) {
    seen.push_back(fmt::format("{} {}", static_cast<int>(level), text));
  });
  set_log_level(LogLevel::kInfo);
  log_debug("hidden {}", 1);
  log_info("a {}", 2);
  log_warn("b");
  set_log_level(LogLevel::kError);
  log_warn("hidden");
  log_error("c");
  set_log_level(LogLevel::kSilent);
  log_error("hidden");
  set_log_sink({});
  set_log_level(before);
  CHECK(seen == std::vector<std::string>{"1 a 2", "2 b", "3 c"});
}

TEST_CASE("a file is no terminal, and NO_COLOR wins") {
  const Capture file;
  CHECK(!is_terminal(file.stream()));
  CHECK(!use_color(file.stream()));
  const ScopedEnv no_color("NO_COLOR", "1");
  CHECK(!use_color(stderr));
}

TEST_CASE("numbers of things") {
  CHECK(format_count(0, "file") == "0 files");
  CHECK(format_count(std::size_t{1}, "file") == "1 file");
  CHECK(format_count(std::int64_t{2}, "validation image") == "2 validation images");
}

TEST_CASE("short numbers") {
  CHECK(format_short(0.0097) == "9.7e-3");
  CHECK(format_short(0.83) == "0.83");
  CHECK(format_short(0.8349) == "0.835");
  CHECK(format_short(12) == "12");
  CHECK(format_short(0) == "0");
  CHECK(format_short(-1.5) == "-1.5");
  CHECK(format_short(1234.4) == "1234");
  CHECK(format_short(999.9) == "1000");
  CHECK(format_short(123456) == "1.23e5");
  CHECK(format_short(1e-5) == "1e-5");
  CHECK(format_short(0.00999) == "0.00999");
  CHECK(format_short(std::nan("")) == "nan");
  CHECK(format_short(-std::numeric_limits<double>::infinity()) == "-inf");
}

TEST_CASE("durations and bytes") {
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(7.4) == "0:07");
  CHECK(format_duration(59.6) == "1:00");
  CHECK(format_duration(3 * 3600 + 21 * 60 + 10) == "3:21:10");
  CHECK(format_duration(3 * 86400 + 4 * 3600 + 5 * 60 + 6) == "3d 04:05:06");
  CHECK(format_duration(-1) == "?");
  CHECK(format_duration(std::nan("")) == "?");
  CHECK(format_bytes(512) == "512B");
  CHECK(format_bytes(1024) == "1.0K");
  CHECK(format_bytes(1'932'735'283) == "1.8G");
  CHECK(format_bytes(1'048'575) == "1.0M");  // not "1024K"
  CHECK(format_bytes(200ULL << 20U) == "200M");
}

TEST_CASE("the training log line") {
  StepLine line;
  line.iteration = 1200;
  line.total = 40000;
  line.learning_rate = 0.0097;
  line.loss = 0.83;
  line.terms = {{"ce", 0.61, 1}, {"cwd", 0.07, 3}};
  line.steps_per_second = 3.1;
  line.data_share = 0.02;
  line.memory_bytes = 1'932'735'283;
  line.eta_seconds = 3 * 3600 + 21 * 60 + 10;
  CHECK(format_step_line(line) ==
        "iter 1200/40000 lr 9.7e-3 loss 0.83 ce 0.61 cwd 3.0*0.07 | 3.1 it/s data 2% mem 1.8G eta 3:21:10");
}

TEST_CASE("the estimate forgets a slow start and never divides by zero") {
  EtaEstimator eta(1000, 10.0);
  CHECK(eta.rate() == 0);
  CHECK(eta.remaining() < 0);
  eta.mark(0, 0);
  eta.mark(100, 1);                                               // the first step took 100 s
  for (int i = 1; i <= 300; ++i) eta.mark(100 + 0.1 * i, 1 + i);  // then 10 per second
  CHECK(eta.rate() == doctest::Approx(10).epsilon(0.02));
  CHECK(eta.remaining() == doctest::Approx(69.9).epsilon(0.02));
  EtaEstimator steady(10);
  steady.mark(5, 0);
  steady.mark(5, 0);
  CHECK(steady.remaining() < 0);
  steady.mark(7, 4);
  CHECK(steady.rate() == doctest::Approx(2));
  steady.mark(9, 20);  // more than promised
  CHECK(steady.remaining() == 0);
}

TEST_CASE("progress without a terminal writes plain lines") {
  const Capture file;
  {
    Progress progress("scan", 4, file.stream(), 0.0);
    progress.advance(1, "a.png");
    progress.advance(3, "b.png");
    progress.finish();
    progress.finish();
  }
  const std::string text = file.text();
  CHECK(std::count(text.begin(), text.end(), '\n') == 3);
  CHECK(text.find("scan 1/4 25% ") == 0);
  CHECK(text.find("scan 4/4 100% ") != std::string::npos);
  CHECK(text.find("took 0:00 b.png\n") != std::string::npos);
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\033') == std::string::npos);
}

TEST_CASE("progress towards an unknown end counts, and promises nothing") {
  const Capture file;
  {
    Progress progress("frames", 0, file.stream(), 0.0);
    progress.advance();
    progress.advance();
  }
  const std::string text = file.text();
  CHECK(text.find("frames 1 ") == 0);
  CHECK(text.find("frames 2 ") != std::string::npos);
  CHECK(text.find("took 0:00\n") != std::string::npos);
  for (const char* wrong : {"/0", "%", "eta"}) CHECK(text.find(wrong) == std::string::npos);
}

TEST_CASE("progress on a terminal redraws one line and fits its width") {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0) {
    MESSAGE("skipped: this system has no pseudo terminals");
    return;
  }
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  winsize size{};
  size.ws_col = 40;
  size.ws_row = 10;
  std::FILE* slave = std::fopen(::ptsname(master), "w");
  REQUIRE(slave != nullptr);
  REQUIRE(::ioctl(::fileno(slave), TIOCSWINSZ, &size) == 0);
  {
    const ScopedEnv term("TERM", "xterm");
    CHECK(is_terminal(slave));
    CHECK(use_color(slave) == (std::getenv("NO_COLOR") == nullptr));
    Progress progress("scan", 4, slave);
    progress.advance(4, "a note that is too long for forty columns");
  }
  {
    const ScopedEnv term("TERM", "dumb");
    CHECK(!is_terminal(slave));
  }
  std::string text(4096, '\0');
  text.resize(static_cast<std::size_t>(::read(master, text.data(), text.size())));
  CHECK(text.find("\r\033[Kscan [########################] 4/4") == 0);
  CHECK(text.find("columns") == std::string::npos);
  CHECK(text.size() <= 4 + 39 + 2);  // wipe sequence, the line, its end
  std::fclose(slave);
  ::close(master);
}

TEST_CASE("metrics are whole lines, also after a crash in the middle of one") {
  const TempDir dir;
  const auto path = dir / "metrics.jsonl";
  {
    JsonlWriter writer(path);
    writer.write(JsonObject().add("iter", 1).add("loss", 0.5));
    CHECK(read_file(path) == "{\"iter\":1,\"loss\":0.5}\n");  // visible before the writer is closed
  }
  std::ofstream(path, std::ios::app) << "{\"iter\":2,\"lo";
  {
    JsonlWriter writer(path);
    writer.write(JsonObject().add("iter", 2));
  }
  CHECK(read_file(path) == "{\"iter\":1,\"loss\":0.5}\n{\"iter\":2}\n");

  std::ofstream(dir / "torn") << std::string(10'000, 'x');  // no newline at all
  JsonlWriter torn(dir / "torn");
  CHECK(read_file(dir / "torn").empty());
  check_throws<Error>([&] { JsonlWriter(dir / "none/m.jsonl"); }, {"none/m.jsonl", "No such file"});
}

TEST_CASE("a full disk is an error, not silence") {
  JsonlWriter writer("/dev/full");
  check_throws<Error>([&] { writer.write(JsonObject().add("a", 1)); }, {"/dev/full", "No space left"});
}

TEST_CASE("truncate_jsonl drops what a resumed run will write again") {
  const TempDir dir;
  const auto path = dir / "m.jsonl";
  write_file_atomic(path, "{\"iter\":1}\n{\"note\":\"x\"}\n{\"iter\":2}\n{\"iter\":3}\n{\"iter\":4}\n{\"iter\"");
  CHECK(truncate_jsonl(path, "iter", 2) == 3);
  CHECK(read_file(path) == "{\"iter\":1}\n{\"note\":\"x\"}\n{\"iter\":2}\n");
  CHECK(truncate_jsonl(path, "iter", 2) == 0);
  CHECK(truncate_jsonl(dir / "none", "iter", 2) == 0);
}

TEST_CASE("JSON text reads back") {
  const std::vector<double> numbers{0.1, -2, 1e300};
  const std::vector<std::int64_t> sizes{1, -2};
  const std::vector<std::string> names{"a", "b\"c"};
  const std::string text = JsonObject()
                               .add("quote\"\\", "line\nbreak\ttab\x01")
                               .add("umlaut", "\xC3\xA4")
                               .add("broken",
                                    "a\xFF"
                                    "b\xC3")
                               .add("float", 0.1F)
                               .add("double", 1.0 / 3)
                               .add("nan", std::nan(""))
                               .add("yes", true)
                               .add("big", std::int64_t{-9'007'199'254'740'993})
                               .add("numbers", std::span<const double>(numbers))
                               .add("sizes", std::span<const std::int64_t>(sizes))
                               .add("names", std::span<const std::string>(names))
                               .add("inner", JsonObject().add("k", 1))
                               .str();
  const auto json = nlohmann::json::parse(text);
  CHECK(json["quote\"\\"] == "line\nbreak\ttab\x01");
  CHECK(json["umlaut"] == "\xC3\xA4");
  CHECK(json["broken"] ==
        "a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD");
  CHECK(text.find("\"float\":0.1,") != std::string::npos);
  CHECK(json["double"].get<double>() == 1.0 / 3);
  CHECK(json["nan"].is_null());
  CHECK(json["yes"] == true);
  CHECK(json["big"].get<std::int64_t>() == -9'007'199'254'740'993);
  CHECK(json["numbers"].get<std::vector<double>>() == numbers);
  CHECK(json["sizes"].get<std::vector<std::int64_t>>() == sizes);
  CHECK(json["names"].get<std::vector<std::string>>() == names);
  CHECK(json["inner"]["k"] == 1);
  CHECK(JsonObject().str() == "{}");
  CHECK(json_array(std::vector<std::string>{"1", "{}"}) == "[1,{}]");
}

TEST_SUITE_END();
