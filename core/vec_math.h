// What this is: exp and log of a float without branches, tables or library calls, so that the compiler turns a loop
//   over an array into vector instructions (a call of std::exp would keep the loop scalar).
// What it is not: a replacement for <cmath> in double precision; reference kernels call std::exp and std::log.
// Read next: ops/softmax_cpu.cpp, which lives on these two functions.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace limbeck {

// Note [fast exp and log]
//   exp: x = n ln 2 + r with |r| <= ln(2)/2, so e^x = 2^n e^r. Adding 1.5 * 2^23 rounds x / ln 2 to the integer n and
//   leaves n in the low mantissa bits of the sum; shifted to the exponent field it is the factor 2^n, applied by one
//   integer addition. e^r = 1 + r + r^2 q(r).
//   log: x = 2^e (1 + f) with 1 + f in [2/3, 4/3), so log x = e ln 2 + log(1 + f), and
//   log(1 + f) = f - f^2/2 + f^3 q(f).
//   Both q are minimax polynomials of the relative error of the function, fitted for this file.
//   ln 2 is split in two so that n times the first half is exact.
inline constexpr float kLn2High = 0.693359375F;
inline constexpr float kLn2Low = -2.12194440e-4F;

/// e^x to 2 units in the last place.
/// Below -87.33 (where the result would be subnormal) returns 0, above 88.72 infinity; NaN gives NaN; fast_exp(0) is
/// exactly 1.
[[nodiscard]] inline float fast_exp(float x) noexcept {
  constexpr float kRound = 12582912.0F;     // 1.5 * 2^23
  constexpr float kLowest = -87.3365447F;   // ln of the smallest normal number
  constexpr float kOverflow = 88.7228394F;  // the first float whose exponential exceeds the largest number
  const float shifted = x * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float q = 0.0013814539F;
  q = q * r + 0.008368745F;
  q = q * r + 0.04166839F;
  q = q * r + 0.16666521F;
  q = q * r + 0.49999994F;
  const float p = (q * r) * r + r + 1.0F;
  const float scaled =
      std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23U));
  const float not_too_low = x < kLowest ? 0.0F : scaled;
  return x < kOverflow ? not_too_low : x * std::numeric_limits<float>::infinity();  // the product keeps a NaN
}

/// Natural logarithm to 2 units in the last place.
/// 0 gives -infinity, a negative number NaN, infinity infinity, NaN NaN; subnormal numbers are handled;
/// fast_log(1) is exactly 0.
[[nodiscard]] inline float fast_log(float x) noexcept {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr std::uint32_t kTwoThirds = 0x3F2AAAABU;
  const bool subnormal = x < std::numeric_limits<float>::min();
  const float normal = subnormal ? x * 8388608.0F : x;  // 2^23
  const auto distance = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(normal) - kTwoThirds);
  const std::int32_t exponent = distance >> 23;
  const float f =
      std::bit_cast<float>(std::bit_cast<std::uint32_t>(normal) - (static_cast<std::uint32_t>(exponent) << 23U)) - 1.0F;
  const float e = static_cast<float>(exponent) - (subnormal ? 23.0F : 0.0F);
  float q = -0.12891679F;
  q = q * f + 0.1398444F;
  q = q * f - 0.12184262F;
  q = q * f + 0.14005868F;
  q = q * f - 0.16680488F;
  q = q * f + 0.20010406F;
  q = q * f - 0.24999797F;
  q = q * f + 0.33333215F;
  const float f2 = f * f;
  const float tail = (q * f) * f2 - 0.5F * f2 + e * kLn2Low;
  const float result = (f + tail) + e * kLn2High;
  const float finite = x > 0.0F ? result : (x == 0.0F ? -kInfinity : std::numeric_limits<float>::quiet_NaN());
  return x < kInfinity ? finite : x;  // infinity and NaN come back as they are
}

}  // namespace limbeck
