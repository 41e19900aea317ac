// What this is: numbers of 8 bits that stand for real ones, and the two ways between them.
// What it is not: the choice of a scale (nn/calibration.h), or arithmetic with such numbers (ops/packed_conv2d_i8.h).
// Read next: ops/packed_conv2d_i8.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// How a number q = 0..255 stands for a real one. Zero is one of them, so that padding is exact.
/// Formula:  real = scale (q - zero)
/// Shapes:   none
struct Quantisation {
  float scale = 1.0F;     ///< above 0
  std::int32_t zero = 0;  ///< 0..255

  [[nodiscard]] float low() const noexcept { return scale * static_cast<float>(-zero); }
  [[nodiscard]] float high() const noexcept { return scale * static_cast<float>(255 - zero); }
  friend bool operator==(const Quantisation&, const Quantisation&) = default;
};

/// The finest quantisation that holds [low, high] and zero.
/// Formula:  scale = (high - low) / 255 after low = min(low, 0), high = max(high, 0); zero = round(-low / scale)
/// Shapes:   none
/// Throws:   Error if an end is not finite or low > high.
[[nodiscard]] Quantisation quantisation_of(double low, double high);

/// Throws an error that begins with [where] unless scale and zero are as Quantisation says.
/// Shapes:   none
void check_quantisation(const char* where, const Quantisation& q);

/// q = round(x / scale) + zero, to nearest, ties to even, and the nearest end outside of 0..255. NaN becomes 0.
/// Shapes:   x any; returns the same, dense
/// Types:    x f32 or bf16; returns u8. CPU only.
[[nodiscard]] Tensor quantise(const Tensor& x, const Quantisation& q);

/// scale (x - zero)
/// Shapes:   x any; returns the same, dense
/// Types:    x u8; returns f32. CPU only.
[[nodiscard]] Tensor dequantise(const Tensor& x, const Quantisation& q);

/// The nearest integer, ties to even; becomes one instruction, in vectors too.
/// Shapes:   one number
[[nodiscard]] inline std::int32_t round_to_even(float v) noexcept {
  return static_cast<std::int32_t>(std::nearbyint(v));  // in the rounding mode that nobody changes
}

}  // namespace limbeck::ops
