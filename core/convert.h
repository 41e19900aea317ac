// What this is: how one number becomes a number of another type, for every pair of element types. A C++ cast, where that has
//   a meaning for every value; a floating number that an integer type cannot hold has none there, and gets one here.
// Read next: core/copy_view.cpp.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/dtype.h"

namespace limbeck {

/// Towards zero; what is too small or too large for `To` becomes its smallest or largest number, NaN becomes 0. Without branches,
/// so that loops of it become vector code. GPU kernels call it, too.
template <std::integral To, std::floating_point From>
[[nodiscard]] constexpr To saturate(From value) noexcept {
  using Limits = std::numeric_limits<To>;
  constexpr auto kLowest = static_cast<From>(Limits::min());
  constexpr auto kEnd =
      static_cast<From>(std::uint64_t{1} << static_cast<unsigned>(Limits::digits));  // a power of two: exact
  const bool fits = value > kLowest && value < kEnd;
  const auto whole = static_cast<To>(fits ? value : From{0});
  return fits ? whole : value >= kEnd ? Limits::max() : value <= kLowest ? Limits::min() : To{0};
}

/// bf16 by way of float; to bool: whether it is not zero; integers that do not fit wrap around.
template <class To, class From>
[[nodiscard]] inline To convert(From value) noexcept {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bfloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From{0};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    return saturate<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace limbeck
