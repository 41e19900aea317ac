// The text of an error, for checks of what it says.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "core/error.h"

namespace limbeck::test {

/// The message of the Error that `f` throws; fails the test and returns "" when it throws none.
template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  FAIL_CHECK("nothing was thrown");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace limbeck::test
