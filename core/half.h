// What this is: IEEE half precision as it appears in files. Not an element type of tensors: it becomes f32 when read.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace limbeck {

/// The value of 16 bits of IEEE 754 binary16, exactly.
[[nodiscard]] inline float half_to_float(std::uint16_t h) noexcept {
  const auto sign = static_cast<std::uint32_t>(h & 0x8000U) << 16U;
  const std::uint32_t exponent = (h >> 10U) & 0x1FU;
  const std::uint32_t mantissa = h & 0x3FFU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13U));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (mantissa << 13U));
  const float tiny = std::ldexp(static_cast<float>(mantissa), -24);  // subnormal half: exact in float
  return sign != 0 ? -tiny : tiny;
}

}  // namespace limbeck
