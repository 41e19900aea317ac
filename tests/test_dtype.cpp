// bfloat16 rounding and the element type tables.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/dtype.h"
#include "core/rng.h"

using namespace limbeck;

TEST_SUITE_BEGIN("dtype");

namespace {

/// Nearest bfloat16 by searching both neighbours; ties go to the even one.
std::uint16_t slow_round(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const auto below = static_cast<std::uint16_t>(u >> 16U);  // towards zero
  if ((u & 0xFFFFU) == 0) return below;
  const auto above = static_cast<std::uint16_t>(below + 1U);
  const double v = x;
  const double low = std::bit_cast<float>(static_cast<std::uint32_t>(below) << 16U);
  const double high = (above & 0x7FFFU) == 0x7F80U
                          ? std::copysign(0x1p128, v)  // the next one would be infinity
                          : double{std::bit_cast<float>(static_cast<std::uint32_t>(above) << 16U)};
  const double d_low = std::abs(v - low);
  const double d_high = std::abs(high - v);
  if (d_low != d_high) return d_low < d_high ? below : above;
  return (below & 1U) == 0 ? below : above;
}

}  // namespace

TEST_CASE("every bfloat16 survives the way to float and back") {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    bfloat16 h;
    h.bits = static_cast<std::uint16_t>(b);
    const auto f = static_cast<float>(h);
    if (std::isnan(f)) {
      CHECK(std::isnan(static_cast<float>(bfloat16(f))));
    } else if (bfloat16(f).bits != h.bits) {
      FAIL("bits ", b, " became ", bfloat16(f).bits);
    }
  }
}

TEST_CASE("float to bfloat16 rounds to the nearest, ties to even") {
  CHECK(bfloat16(0x1.01p0F).bits == 0x3F80);  // exactly between 1 and 1 + 2^-7: to the even 1
  CHECK(bfloat16(0x1.03p0F).bits == 0x3F82);  // between 1 + 2^-7 and 1 + 2^-6: up to even
  CHECK(bfloat16(0x1.010002p0F).bits == 0x3F81);
  CHECK(bfloat16(-0.0F).bits == 0x8000);
  CHECK(bfloat16(std::numeric_limits<float>::infinity()).bits == 0x7F80);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7F80);                   // rounds up to infinity
  CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0x7F800001U)))));  // payload in the low bits only
  CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0xFFFFFFFFU)))));
  Generator g(3);
  for (int i = 0; i < 200'000; ++i) {
    const float x = std::bit_cast<float>(g.next_word());
    if (std::isnan(x)) continue;
    if (bfloat16(x).bits != slow_round(x)) FAIL("x = ", x);
  }
  for (std::uint32_t low = 0; low < 0x20000U; ++low) {  // every pattern of the rounded bits
    const float x = std::bit_cast<float>(0x3F800000U + low);
    if (bfloat16(x).bits != slow_round(x)) FAIL("x = ", x);
  }
}

TEST_CASE("sizes, names and visitors agree with the C++ types") {
  for (const DType t : {DType::kF32, DType::kF64, DType::kBF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool}) {
    visit_dtype(t, [&](auto value) {
      CHECK(sizeof(value) == size_of(t));
      CHECK(dtype_of<decltype(value)> == t);
    });
    CHECK(name_of(t) != "?");
  }
  CHECK(is_floating(DType::kBF16));
  CHECK(!is_floating(DType::kI64));
  CHECK(!is_floating(DType::kBool));
  CHECK_THROWS_WITH_AS(visit_reference_dtype("relu", DType::kBF16, [](auto) {}),
                       "[relu] reference kernel got bf16, expected f32 or f64; cast first", Error);
  CHECK_THROWS_AS(visit_fast_dtype("relu", DType::kF64, [](auto) {}), Error);
  CHECK(visit_fast_dtype("relu", DType::kBF16, [](auto v) { return std::is_same_v<decltype(v), bfloat16>; }));
}

TEST_SUITE_END();
