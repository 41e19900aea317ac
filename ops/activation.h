// What this is: the activations that other ops can fuse into their own pass (batch norm, packed convolution).
// What it is not: the activation functions as ops of their own; those are in ops/elementwise.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace limbeck::ops {

/// Activation applied to a result before it is stored.
/// Formula:  kNone y = x;  kRelu y = max(x, 0);  kRelu6 y = min(max(x, 0), 6)
/// Shapes:   element by element
/// Gradient: depends on y alone: kRelu passes where y > 0, kRelu6 where 0 < y < 6.
enum class Activation : std::uint8_t { kNone, kRelu, kRelu6 };

/// "none", "relu", "relu6"
/// Shapes:   none
[[nodiscard]] constexpr std::string_view name_of(Activation act) noexcept {
  switch (act) {
    case Activation::kNone: return "none";
    case Activation::kRelu: return "relu";
    case Activation::kRelu6: return "relu6";
  }
  return "?";
}

/// The activated value. NaN stays NaN: hiding it here would hide a diverged training run.
/// Shapes:   one element
template <class T>
[[nodiscard]] constexpr T activate(Activation act, T x) noexcept {
  if (act == Activation::kNone) return x;
  const T low = x <= T(0) ? T(0) : x;
  return act == Activation::kRelu6 && low > T(6) ? T(6) : low;
}

/// dy/dx of `activate`, from its result y.
/// Shapes:   one element
template <class T>
[[nodiscard]] constexpr T activation_slope(Activation act, T y) noexcept {
  if (act == Activation::kNone) return T(1);
  const bool inside = y > T(0) && (act != Activation::kRelu6 || y < T(6));
  return inside ? T(1) : T(0);
}

}  // namespace limbeck::ops
