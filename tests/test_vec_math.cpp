// fast_exp and fast_log against the C++ library in double, and their special values.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/vec_math.h"

using namespace limbeck;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// |got - want| in units of the last place of the float next to `want`.
double ulps(float got, double want) {
  int exponent = 0;
  std::frexp(static_cast<float>(want), &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, -125) - 24);
  return std::abs(static_cast<double>(got) - want) / unit;
}

/// Calls `body` with floats of every exponent and sign; the prime step visits all kinds of mantissas.
template <class Body>
void for_floats(const Body& body) {
  constexpr std::uint64_t kStep = 4093;
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32U); u += kStep) {
    body(std::bit_cast<float>(static_cast<std::uint32_t>(u)));
  }
}

}  // namespace

TEST_CASE("fast_exp: within 2 ulp where the result is a normal number") {
  double worst = 0;
  for_floats([&](float x) {
    if (x > -87.33654F && x < 88.72283F) worst = std::max(worst, ulps(fast_exp(x), std::exp(static_cast<double>(x))));
  });
  CHECK(worst < 2.0);
  CHECK(worst > 0.3);  // the loop did compare something
}

TEST_CASE("fast_exp: special values") {
  CHECK(fast_exp(0.0F) == 1.0F);
  CHECK(fast_exp(-0.0F) == 1.0F);
  CHECK(fast_exp(-kInf) == 0.0F);
  CHECK(fast_exp(-1e30F) == 0.0F);
  CHECK(fast_exp(-1e4F) == 0.0F);
  CHECK(fast_exp(-88.0F) == 0.0F);
  CHECK(fast_exp(-87.3F) > 0.0F);
  CHECK(fast_exp(kInf) == kInf);
  CHECK(fast_exp(1e30F) == kInf);
  CHECK(fast_exp(89.0F) == kInf);
  CHECK(std::isfinite(fast_exp(88.72283F)));
  CHECK(std::isnan(fast_exp(kNaN)));
  CHECK(std::isnan(fast_exp(-kNaN)));
  CHECK(std::isnan(fast_exp(std::bit_cast<float>(0x7FFFFFFFU))));
}

TEST_CASE("fast_log: within 2 ulp, subnormal numbers included") {
  double worst = 0;
  for_floats([&](float x) {
    if (x > 0 && x < kInf) worst = std::max(worst, ulps(fast_log(x), std::log(static_cast<double>(x))));
  });
  CHECK(worst < 2.0);
  CHECK(worst > 0.3);
}

TEST_CASE("fast_log: special values") {
  CHECK(fast_log(1.0F) == 0.0F);
  CHECK(fast_log(0.0F) == -kInf);
  CHECK(fast_log(-0.0F) == -kInf);
  CHECK(fast_log(kInf) == kInf);
  CHECK(std::isnan(fast_log(-1.0F)));
  CHECK(std::isnan(fast_log(-kInf)));
  CHECK(std::isnan(fast_log(kNaN)));
}
