// What this is: depthwise int8 convolution.
//
// Note [four taps]
//   The dot product of the processor sums four neighbouring bytes. Here these are four taps of one channel, so the taps are taken in fours:
//   16 channels of each are loaded, and one permutation brings the four bytes of a channel together. Taps that lie outside of the map
//   read a pixel of padding: there are no borders to look after.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv2d_i8_store.h"

namespace limbeck::ops {
namespace i8 {
namespace {

constexpr std::int64_t kMostTaps = 256;
constexpr std::int64_t kRowGrain = 1 << 14;  // products below which a thread is not worth its start

std::int64_t groups_of(const Shape& w) { return (w[2] * w[3] + 3) / 4; }
std::int64_t vectors_of(const Shape& w) { return (w[0] + kSide - 1) / kSide; }

/// Pixels that the taps of one result read.
using Taps = std::array<const std::uint8_t*, kMostTaps>;

#if defined(LIMBECK_I8_AVX512) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

/// Byte 4 c + k of the result is byte 16 k + c.
__m512i transposition() noexcept {
  alignas(64) std::array<std::uint8_t, 64> index{};
  for (std::size_t i = 0; i < 64; ++i) index[i] = static_cast<std::uint8_t>(i % 4 * 16 + i / 4);
  return _mm512_load_si512(index.data());
}

template <bool Whole>
[[gnu::always_inline]] inline __m128i load(const std::uint8_t* x, __mmask16 mask) {
  if constexpr (Whole) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));  // becomes part of what uses it
  return _mm_maskz_loadu_epi8(mask, x);
}

/// Channels c .. c + 15 of `Count` taps, those of a channel side by side.
template <std::int64_t Count, bool Whole>
[[gnu::always_inline]] inline __m512i four_taps(const std::uint8_t* const* taps, std::int64_t c, __mmask16 mask,
                                                __m512i transpose) {
  __m512i four = _mm512_zextsi128_si512(load<Whole>(taps[0] + c, mask));
  if constexpr (Count > 1) four = _mm512_inserti32x4(four, load<Whole>(taps[1] + c, mask), 1);
  if constexpr (Count > 2) four = _mm512_inserti32x4(four, load<Whole>(taps[2] + c, mask), 2);
  if constexpr (Count > 3) four = _mm512_inserti32x4(four, load<Whole>(taps[3] + c, mask), 3);
  return _mm512_maskz_permutexvar_epi8(~__mmask64{0}, transpose, four);
}

/// Channels c .. c + 15 of one result; `Last` taps are in the last group, groups of weights are `step` bytes apart.
template <std::int64_t Last, bool Whole, class Y>
[[gnu::always_inline]] inline void vector(const ResultI8& result, const std::uint8_t* const* tap,
                                          const std::int8_t* weights, std::int64_t groups, std::int64_t step,
                                          std::int64_t c, std::int64_t count, __m512i transpose,
                                          const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const Finish finish(result, offset + c, c, count - c);
  __m512i sum{};
  for (std::int64_t g = 0; g + 1 < groups; ++g, tap += 4, weights += step) {
    const __m512i four = four_taps<4, Whole>(tap, c, finish.mask(), transpose);
    sum = _mm512_dpbusd_epi32(sum, four, _mm512_loadu_si512(weights));
  }
  const __m512i four = four_taps<Last, Whole>(tap, c, finish.mask(), transpose);
  sum = _mm512_dpbusd_epi32(sum, four, _mm512_loadu_si512(weights));
  finish(sum, residual != nullptr ? residual + c : nullptr, y + c);
}

/// All channels of one result.
template <std::int64_t Last, class Y>
void channels(const ResultI8& result, const Taps& taps, const std::int8_t* weights, std::int64_t groups,
              std::int64_t count, const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const __m512i transpose = transposition();
  const std::int64_t step = (count + kSide - 1) / kSide * 4 * kSide;
  std::int64_t c = 0;
  for (; c + kSide <= count; c += kSide)
    vector<Last, true>(result, taps.data(), weights + 4 * c, groups, step, c, count, transpose, offset, residual, y);
  if (c < count)
    vector<Last, false>(result, taps.data(), weights + 4 * c, groups, step, c, count, transpose, offset, residual, y);
}

template <class Y>
void pixel(const ResultI8& result, const Taps& taps, std::int64_t tap_count, const std::int8_t* weights,
           std::int64_t count, const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const std::int64_t groups = (tap_count + 3) / 4;
  switch (tap_count % 4) {
    case 1: channels<1>(result, taps, weights, groups, count, offset, residual, y); break;
    case 2: channels<2>(result, taps, weights, groups, count, offset, residual, y); break;
    case 3: channels<3>(result, taps, weights, groups, count, offset, residual, y); break;
    default: channels<4>(result, taps, weights, groups, count, offset, residual, y);
  }
}

#else

template <class Y>
void pixel(const ResultI8& result, const Taps& taps, std::int64_t tap_count, const std::int8_t* weights,
           std::int64_t count, const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const std::int64_t vectors = (count + kSide - 1) / kSide;
  for (std::int64_t c = 0; c < count; c += kSide) {
    const std::int64_t some = std::min(kSide, count - c);
    std::array<std::int32_t, kSide> sums{};
    for (std::int64_t k = 0; k < tap_count; ++k) {
      const std::int8_t* w = weights + (k / 4 * vectors + c / kSide) * 4 * kSide + k % 4;
      const std::uint8_t* x = taps[static_cast<std::size_t>(k)] + c;
#pragma omp simd
      for (std::int64_t i = 0; i < some; ++i) sums[static_cast<std::size_t>(i)] += x[i] * w[4 * i];
    }
    Finish(result, offset + c, c, some)(sums.data(), residual != nullptr ? residual + c : nullptr, y + c);
  }
}

#endif

/// Row `row` of all result maps. Where all columns of a kernel are inside, its taps go on by one step from pixel to pixel.
template <class Y>
void run_row(const ConvI8& job, const std::int8_t* weights, std::int64_t row, const std::int32_t* offset,
             const std::uint8_t* padding) {
  const Conv2dOptions& o = job.options;
  const std::int64_t count = job.x.c(), kh = job.w[2], kw = job.w[3], width = job.x.w();
  const std::int64_t n = row / job.y.h();
  const std::int64_t top = row % job.y.h() * o.stride[0] - o.padding[0];
  const ResultI8 result = job.result;  // a copy, see Finish
  Taps taps;
  std::array<std::int64_t, kMostTaps> advance{};
  bool whole = false;  // the columns of the pixel before
  for (std::int64_t q = 0; q < job.y.w(); ++q) {
    const std::int64_t left = q * o.stride[1] - o.padding[1];
    const bool inside = left >= 0 && left + (kw - 1) * o.dilation[1] < width;
    for (std::int64_t k = 0; k < kh * kw; ++k) {
      const auto at = static_cast<std::size_t>(k);
      if (whole && inside) {
        taps[at] += advance[at];
        continue;
      }
      const std::int64_t h = top + k / kw * o.dilation[0], w = left + k % kw * o.dilation[1];
      const bool in_map = h >= 0 && h < job.x.h();
      advance[at] = in_map ? o.stride[1] * count : 0;
      taps[at] = in_map && w >= 0 && w < width ? job.x.ptr<std::uint8_t>() + ((n * job.x.h() + h) * width + w) * count
                                               : padding;
    }
    whole = inside;
    const std::int64_t at = (row * job.y.w() + q) * count;
    pixel(result, taps, kh * kw, weights, count, offset,
          job.residual.defined() ? job.residual.ptr<std::uint8_t>() + at : nullptr, job.y.ptr<Y>() + at);
  }
}

}  // namespace
}  // namespace i8

bool depthwise_i8_fits(const Shape& w) noexcept { return w[2] * w[3] <= i8::kMostTaps; }

std::size_t depthwise_i8_packed_bytes(const Shape& w) {
  return static_cast<std::size_t>(i8::groups_of(w) * i8::vectors_of(w) * 4 * i8::kSide);
}

// [group of four taps][vector of channels][16][4]
void depthwise_i8_pack(const std::int8_t* weights, const Shape& w, void* packed) {
  auto* out = static_cast<std::int8_t*>(packed);
  const std::int64_t taps = w[2] * w[3];
  std::fill_n(out, depthwise_i8_packed_bytes(w), std::int8_t{0});
  for (std::int64_t c = 0; c < w[0]; ++c) {
    for (std::int64_t k = 0; k < taps; ++k) {
      out[((k / 4 * i8::vectors_of(w) + c / i8::kSide) * i8::kSide + c % i8::kSide) * 4 + k % 4] =
          weights[c * taps + k];
    }
  }
}

void depthwise_i8_cpu(const ConvI8& job, const void* packed) {
  const auto* weights = static_cast<const std::int8_t*>(packed);
  const std::int64_t vectors = i8::vectors_of(job.w), groups = i8::groups_of(job.w), lanes = vectors * i8::kSide;
  // What is to be subtracted from the sums, see Note [zero point] of ops/conv2d_i8_cpu.cpp; then a pixel of padding.
  const Workspace memory(static_cast<std::size_t>(lanes) * 5);
  auto* offset = memory.as<std::int32_t>();
  auto* padding = reinterpret_cast<std::uint8_t*>(offset + lanes);
  std::fill_n(padding, lanes, static_cast<std::uint8_t>(job.x_zero));
  std::fill_n(offset, lanes, 0);
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t i = 0; i < lanes * 4; ++i) offset[i / 4] += job.x_zero * weights[g * lanes * 4 + i];
  }
  const std::int64_t row_products = job.y.w() * job.y.c() * job.w[2] * job.w[3];
  const std::int64_t grain = std::max<std::int64_t>(1, i8::kRowGrain / row_products);
  parallel_for(job.y.n() * job.y.h(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      if (job.y.dtype == DType::kU8) {
        i8::run_row<std::uint8_t>(job, weights, row, offset, padding);
      } else {
        i8::run_row<float>(job, weights, row, offset, padding);
      }
    }
  });
}

}  // namespace limbeck::ops
