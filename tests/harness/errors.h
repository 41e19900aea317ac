// The text of an error, for checks of what it says.
#pragma once

#include <doctest/doctest.h>

#include <exception>
#include <string>

#include "core/error.h"

namespace limbeck::test {

/// The message of the E that `f` throws; fails the test and returns "" when it throws nothing or something else.
template <class E = Error, class F>
std::string message_of(F&& f) {
  try {
    static_cast<void>(f());
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    FAIL_CHECK("another exception: ", e.what());
    return "";
  }
  FAIL_CHECK("nothing was thrown");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// doctest evaluates the message of CHECK_MESSAGE a second time, under its lock; hence the copy.
#define CHECK_CONTAINS(text, part)                                            \
  do {                                                                        \
    const std::string found_text = (text);                                    \
    CHECK_MESSAGE(::limbeck::test::contains(found_text, (part)), found_text); \
  } while (false)

}  // namespace limbeck::test
