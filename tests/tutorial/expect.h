// What this is: the one helper of the tutorial programs. Each program prints what it explains and checks it; a wrong
//   result makes the program fail, so the text cannot drift away from the code.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>

namespace limbeck::tutorial {

inline int failures = 0;

/// Prints the sentence with "ok" or "WRONG" in front.
inline void expect(bool condition, const char* sentence) {
  fmt::print("  {} {}\n", condition ? "ok   " : "WRONG", sentence);
  if (!condition) ++failures;
}

/// Prints a heading.
inline void section(const char* title) { fmt::print("\n{}\n", title); }

/// The exit status of the program.
inline int result() {
  fmt::print("\n{}\n", failures == 0 ? "everything as described" : "SOMETHING IS NOT AS DESCRIBED");
  return failures == 0 ? 0 : 1;
}

/// The message of the error that `f` throws, which is also printed; empty if it throws none.
template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const std::exception& e) {
    fmt::print("  error: {}\n", e.what());
    return e.what();
  }
  return {};
}

}  // namespace limbeck::tutorial
