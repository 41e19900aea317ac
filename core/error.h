// What this is: the exception types of limbeck and the two ways to throw them.
// What it is not: a logging facility (core/log.h). Nothing below main() ever calls exit().
// Read next: core/tensor.h.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace limbeck {

/// Process exit status that main() derives from an exception; scripts may rely on the numbers.
enum class ExitCode : int {
  kOk = 0,
  kRuntime = 1,       ///< anything without a more precise code, e.g. disk full
  kUsage = 2,         ///< command line or configuration
  kData = 3,          ///< images, masks, lists
  kWeights = 4,       ///< checkpoints and weight files
  kNonFinite = 5,     ///< NaN or infinity in a loss
  kTimeout = 6,       ///< a collective timed out
  kSaved = 75,        ///< state saved after SIGTERM/SIGUSR1: run again (EX_TEMPFAIL)
  kInterrupted = 130  ///< Ctrl-C
};

/// Base of every exception that limbeck throws.
/// The text reads `[where] what, got ..., expected ..., hint`.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::kRuntime)
      : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode exit_code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// A command line or configuration mistake (exit status 2).
struct ConfigError : Error {
  explicit ConfigError(const std::string& m) : Error(m, ExitCode::kUsage) {}
};
/// A problem with an image, a mask or a list file (exit status 3).
struct DataError : Error {
  explicit DataError(const std::string& m) : Error(m, ExitCode::kData) {}
};
/// A weight file that is damaged or does not fit the model (exit status 4).
struct WeightsError : Error {
  explicit WeightsError(const std::string& m) : Error(m, ExitCode::kWeights) {}
};
/// A loss or gradient became NaN or infinite (exit status 5).
struct NonFiniteError : Error {
  explicit NonFiniteError(const std::string& m) : Error(m, ExitCode::kNonFinite) {}
};

/// Throws `E` with the text `[where] formatted message`.
template <class E = Error, class... Args>
[[noreturn]] void fail(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format("[{}] {}", where, fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace limbeck

/// Throws limbeck::Error when `condition` is false; the message is only formatted in that case.
#define LIMBECK_CHECK(condition, where, ...) \
  do {                                       \
    if (!(condition)) [[unlikely]] {         \
      ::limbeck::fail((where), __VA_ARGS__); \
    }                                        \
  } while (false)
