// What this is: up to 16 neighbouring sums of an int8 convolution into results, with AVX-512 or as a loop; the same bits either way.
#pragma once

#include "ops/conv2d_i8_kernels.h"
#include "ops/simd.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LIMBECK_I8_AVX512 1
#endif

namespace limbeck::ops::i8 {

/// What the results of filters o .. o + 15 are computed with. A local copy of it stays in registers; what lies elsewhere would be read again for
/// every result, because bytes that are written may be anything.
/// Shapes:   offset [16]: what is to be subtracted from the sums
#if defined(LIMBECK_I8_AVX512)

class Finish {
 public:
  // Masked forms, because g++ 12 warns falsely about the others; a mask of ones costs nothing.
  Finish(const ResultI8& result, const std::int32_t* offset, std::int64_t o, std::int64_t count) noexcept
      : offset_(_mm512_loadu_si512(offset)),
        residual_zero_(_mm512_set1_epi32(result.residual_zero)),
        zero_(_mm512_set1_epi32(result.zero)),
        mask_(simd::first_lanes(count)),
        multiplier_(_mm512_maskz_loadu_ps(mask_, result.multiplier + o)),
        bias_(_mm512_maskz_loadu_ps(mask_, result.bias + o)),
        residual_scale_(_mm512_set1_ps(result.residual_scale)),
        low_(_mm512_set1_ps(result.low)),
        high_(_mm512_set1_ps(result.high)) {}

  [[nodiscard]] __mmask16 mask() const noexcept { return mask_; }

  /// Results of one pixel; residual may be null.
  /// Shapes:   sums [16]; residual, y [count]
  template <class Y>
  [[gnu::always_inline]] void operator()(const std::int32_t* sums, const std::uint8_t* residual, Y* y) const noexcept {
    (*this)(_mm512_loadu_si512(sums), residual, y);
  }
  template <class Y>
  [[gnu::always_inline]] void operator()(__m512i sums, const std::uint8_t* residual, Y* y) const noexcept {
    const __m512i sum = _mm512_sub_epi32(sums, offset_);
    __m512 t = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xFFFF, sum), multiplier_, bias_);
    if (residual != nullptr) {
      const __m512i r = _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_maskz_loadu_epi8(mask_, residual));
      const __m512 value = _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_sub_epi32(r, residual_zero_));
      t = _mm512_fmadd_ps(value, residual_scale_, t);
    }
    put(_mm512_maskz_min_ps(0xFFFF, _mm512_maskz_max_ps(0xFFFF, t, low_), high_), y);
  }

 private:
  [[gnu::always_inline]] void put(__m512 t, float* y) const noexcept { _mm512_mask_storeu_ps(y, mask_, t); }
  [[gnu::always_inline]] void put(__m512 t, std::uint8_t* y) const noexcept {
    const __m512i q = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(0xFFFF, t), zero_);
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xFFFF, q);
    if (mask_ == 0xFFFF) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes);
    } else {
      _mm_mask_storeu_epi8(y, mask_, bytes);
    }
  }

  __m512i offset_, residual_zero_, zero_;
  __mmask16 mask_;
  __m512 multiplier_, bias_, residual_scale_, low_, high_;
};

#else

class Finish {
 public:
  Finish(const ResultI8& result, const std::int32_t* offset, std::int64_t o, std::int64_t count) noexcept
      : result_(result), offset_(offset), first_(o), count_(count) {}

  template <class Y>
  void operator()(const std::int32_t* sums, const std::uint8_t* residual, Y* y) const noexcept {
#pragma omp simd
    for (std::int64_t c = 0; c < count_; ++c) {
      float t = result_.value(sums[c] - offset_[c], first_ + c);
      if (residual != nullptr) t = result_.add_residual(t, residual[c]);
      result_.store(t, y[c]);
    }
  }

 private:
  ResultI8 result_;
  const std::int32_t* offset_;
  std::int64_t first_, count_;
};

#endif

}  // namespace limbeck::ops::i8
