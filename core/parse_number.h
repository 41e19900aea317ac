// What this is: numbers from text that somebody else wrote: the whole text, in range, or nothing. (std::stoi takes "12 apples", and
//   throws; std::atoi cannot fail.)
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace limbeck {

/// `text` as a number of type T; nothing if any other character is in it, or if T cannot hold it. No space, no leading '+'.
/// `base` is that of integers.
template <class T>
[[nodiscard]] std::optional<T> parse_number(std::string_view text, int base = 10) noexcept {
  T value{};
  const char* const last = text.data() + text.size();
  std::from_chars_result result{};
  if constexpr (std::is_integral_v<T>) {
    result = std::from_chars(text.data(), last, value, base);
  } else {
    result = std::from_chars(text.data(), last, value);
  }
  if (result.ec != std::errc() || result.ptr != last) return std::nullopt;
  return value;
}

}  // namespace limbeck
