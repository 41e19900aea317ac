// What this is: up to 16 neighbouring sums of an int8 convolution into results, with AVX-512 or as a loop; the same bits either way.
#pragma once

#include "ops/conv2d_i8_kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LIMBECK_I8_AVX512 1
#endif

namespace limbeck::ops::i8 {

#if defined(LIMBECK_I8_AVX512)

[[gnu::always_inline]] inline __mmask16 lanes(std::int64_t count) noexcept {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFFU : (1U << static_cast<unsigned>(count)) - 1U);
}

// Masked forms, because g++ 12 warns falsely about the others; a mask of ones costs nothing.
[[gnu::always_inline]] inline void put(float* y, __mmask16 mask, __m512 t, std::int32_t) noexcept {
  _mm512_mask_storeu_ps(y, mask, t);
}
[[gnu::always_inline]] inline void put(std::uint8_t* y, __mmask16 mask, __m512 t, std::int32_t zero) noexcept {
  const __m512i q = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(0xFFFF, t), _mm512_set1_epi32(zero));
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xFFFF, q);  // whole vectors apart: storing under a mask is slow
  if (mask == 0xFFFF) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes);
  } else {
    _mm_mask_storeu_epi8(y, mask, bytes);
  }
}

/// Results o .. o + count - 1 of one pixel, from the sums of their filters; residual may be null.
/// Shapes:   residual, y [count]
template <class Y>
[[gnu::always_inline]] inline void store(const ResultI8& result, __m512i sums, std::int64_t o, __mmask16 mask,
                                         const std::uint8_t* residual, Y* y) noexcept {
  const __m512 multiplier = _mm512_maskz_loadu_ps(mask, result.multiplier + o);
  const __m512 bias = _mm512_maskz_loadu_ps(mask, result.bias + o);
  __m512 t = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xFFFF, sums), multiplier, bias);
  if (residual != nullptr) {
    const __m512i r = _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_maskz_loadu_epi8(mask, residual));
    const __m512 value = _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_sub_epi32(r, _mm512_set1_epi32(result.residual_zero)));
    t = _mm512_fmadd_ps(value, _mm512_set1_ps(result.residual_scale), t);
  }
  t = _mm512_maskz_max_ps(0xFFFF, t, _mm512_set1_ps(result.low));
  t = _mm512_maskz_min_ps(0xFFFF, t, _mm512_set1_ps(result.high));
  put(y, mask, t, result.zero);
}

/// The same for sums in memory, minus offset[0 .. count - 1].
/// Shapes:   sums, offset [16]
template <class Y>
inline void store(const ResultI8& result, const std::int32_t* sums, const std::int32_t* offset, std::int64_t o,
                  std::int64_t count, const std::uint8_t* residual, Y* y) noexcept {
  store(result, _mm512_sub_epi32(_mm512_loadu_si512(sums), _mm512_loadu_si512(offset)), o, lanes(count), residual, y);
}

#else

template <class Y>
inline void store(const ResultI8& result, const std::int32_t* sums, const std::int32_t* offset, std::int64_t o,
                  std::int64_t count, const std::uint8_t* residual, Y* y) noexcept {
#pragma omp simd
  for (std::int64_t c = 0; c < count; ++c) {
    float t = result.value(sums[c] - offset[c], o + c);
    if (residual != nullptr) t = result.add_residual(t, residual[c]);
    result.store(t, y[c]);
  }
}

#endif

}  // namespace limbeck::ops::i8
