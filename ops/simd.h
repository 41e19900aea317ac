// What this is: a vector of floats of the processor's native width (16 with AVX-512, 8 with AVX, else 4), with loads and
//   stores that convert bf16. Built on the compiler's vector types, so +, * and comparisons are ordinary operators and
//   a[i] * b[i] + c[i] becomes one fused multiply-add.
// What it is not: a portable SIMD library; it holds just what the convolution kernels need. Loops that the compiler
//   vectorises by itself use `#pragma omp simd` instead.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "core/dtype.h"
#include "ops/activation.h"

namespace limbeck::ops::simd {

#if defined(__AVX512F__)
inline constexpr std::int64_t kLanes = 16;
#elif defined(__AVX__)
inline constexpr std::int64_t kLanes = 8;
#else
inline constexpr std::int64_t kLanes = 4;
#endif

using Vec [[gnu::vector_size(kLanes * 4)]] = float;
using Bits [[gnu::vector_size(kLanes * 4)]] = std::uint32_t;
using Half [[gnu::vector_size(kLanes * 2)]] = std::uint16_t;

/// Shapes:   all helpers of this file work on kLanes neighbouring elements
inline Vec broadcast(float value) noexcept { return Vec{} + value; }

inline Vec load(const float* p) noexcept {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const bfloat16* p) noexcept {
  Half h;
  std::memcpy(&h, p, sizeof h);
  return std::bit_cast<Vec>(__builtin_convertvector(h, Bits) << 16U);
}

inline void store(float* p, Vec v) noexcept { std::memcpy(p, &v, sizeof v); }
inline void store(bfloat16* p, Vec v) noexcept {
#if defined(__AVX512BF16__)
  const __m256bh h = _mm512_cvtneps_pbh(v);
#else
  const auto u = std::bit_cast<Bits>(v);
  const Bits rounded = (u + 0x7FFFU + ((u >> 16U) & 1U)) >> 16U;
  const Bits quiet_nan = (u >> 16U) | 0x40U;
  const Half h = __builtin_convertvector((u & 0x7FFFFFFFU) > 0x7F800000U ? quiet_nan : rounded, Half);
#endif
  std::memcpy(static_cast<void*>(p), &h, sizeof h);
}

/// The first `count` < kLanes elements; the other lanes are 0.
template <class T>
inline Vec load_some(const T* p, std::int64_t count) noexcept {
  T buffer[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}
template <class T>
inline void store_some(T* p, Vec v, std::int64_t count) noexcept {
  T buffer[kLanes];
  store(buffer, v);
  for (std::int64_t i = 0; i < count; ++i) p[i] = buffer[i];
}

#if defined(__AVX512F__)
/// A bit for each of the first `count` lanes; all where there are more.
inline __mmask16 first_lanes(std::int64_t count) noexcept {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFFU : (1U << static_cast<unsigned>(count)) - 1U);
}
#endif

/// The larger or smaller of bound and v lane by lane; NaN in v stays NaN.
inline Vec at_least(Vec bound, Vec v) noexcept {
#if defined(__AVX512F__)
  // Of a number and a NaN the instruction returns its second operand. The masked form is the one that g++ 12 compiles
  // without a false warning; a mask of ones costs nothing.
  return _mm512_maskz_max_ps(static_cast<__mmask16>(0xFFFF), bound, v);
#else
  return v < bound ? bound : v;
#endif
}
inline Vec at_most(Vec bound, Vec v) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(static_cast<__mmask16>(0xFFFF), bound, v);
#else
  return v > bound ? bound : v;
#endif
}

/// Lane by lane; NaN stays NaN, as in activate() of ops/activation.h.
inline Vec activate(Activation act, Vec v) noexcept {
  if (act == Activation::kNone) return v;
  v = at_least(Vec{}, v);
  return act == Activation::kRelu6 ? at_most(broadcast(6.0F), v) : v;
}

}  // namespace limbeck::ops::simd
