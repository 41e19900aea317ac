// What this is: depthwise int8 convolution.
//
// Note [four taps]
//   The dot product of the processor sums four neighbouring bytes. Here these are four taps of one channel, so the taps are taken in fours:
//   16 channels of each are loaded, and one permutation brings the four bytes of a channel together. Taps that lie outside of the map, and
//   those that fill up the last four, read a pixel of padding: there are no borders to look after.
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

/// Products of the taps with channels c .. c + 15, of which `mask` exist; then results.
template <class Y>
[[gnu::always_inline]] inline void channels(const ResultI8& result, const Taps& taps, const std::int8_t* weights,
                                            std::int64_t groups, std::int64_t vectors, const std::int32_t* offset,
                                            std::int64_t c, __mmask16 mask, __m512i transpose,
                                            const std::uint8_t* residual, Y* y) {
  __m512i sum = _mm512_sub_epi32(__m512i{}, _mm512_loadu_si512(offset + c));
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto get = [&](std::int64_t k) {
      return _mm_maskz_loadu_epi8(mask, taps[static_cast<std::size_t>(4 * g + k)] + c);
    };
    struct Four {
      __m128i tap[4];
    };
    const auto four = std::bit_cast<__m512i>(Four{{get(0), get(1), get(2), get(3)}});
    const __m512i bytes = _mm512_maskz_permutexvar_epi8(~__mmask64{0}, transpose, four);
    sum = _mm512_dpbusd_epi32(sum, bytes, _mm512_loadu_si512(weights + (g * vectors + c / kSide) * 4 * kSide));
  }
  store(result, sum, c, mask, residual, y);
}

template <class Y>
void pixel(const ResultI8& result, const Taps& taps, const std::int8_t* weights, std::int64_t groups,
           std::int64_t count, const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const __m512i transpose = transposition();
  const std::int64_t vectors = (count + kSide - 1) / kSide;
  for (std::int64_t c = 0; c < count; c += kSide) {
    channels(result, taps, weights, groups, vectors, offset, c, lanes(count - c), transpose,
             residual != nullptr ? residual + c : nullptr, y + c);
  }
}

#else

template <class Y>
void pixel(const ResultI8& result, const Taps& taps, const std::int8_t* weights, std::int64_t groups,
           std::int64_t count, const std::int32_t* offset, const std::uint8_t* residual, Y* y) {
  const std::int64_t vectors = (count + kSide - 1) / kSide;
  for (std::int64_t c = 0; c < count; c += kSide) {
    const std::int64_t some = std::min(kSide, count - c);
    std::array<std::int32_t, kSide> sums{};
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int8_t* w = weights + (g * vectors + c / kSide) * 4 * kSide;
      for (std::int64_t k = 0; k < 4; ++k) {
        const std::uint8_t* x = taps[static_cast<std::size_t>(4 * g + k)] + c;
#pragma omp simd
        for (std::int64_t i = 0; i < some; ++i) sums[static_cast<std::size_t>(i)] += x[i] * w[4 * i + k];
      }
    }
    store(result, sums.data(), offset + c, c, some, residual != nullptr ? residual + c : nullptr, y + c);
  }
}

#endif

/// Row `row` of all result maps.
template <class Y>
void run_row(const ConvI8& job, const std::int8_t* weights, std::int64_t row, const std::int32_t* offset,
             const std::uint8_t* padding) {
  const Conv2dOptions& o = job.options;
  const std::int64_t channels = job.x.c(), kh = job.w[2], kw = job.w[3];
  const std::int64_t n = row / job.y.h();
  const std::int64_t top = row % job.y.h() * o.stride[0] - o.padding[0];
  Taps taps;
  taps.fill(padding);
  for (std::int64_t q = 0; q < job.y.w(); ++q) {
    const std::int64_t left = q * o.stride[1] - o.padding[1];
    for (std::int64_t r = 0; r < kh; ++r) {
      const std::int64_t h = top + r * o.dilation[0];
      const bool in_map = h >= 0 && h < job.x.h();
      const std::uint8_t* line = job.x.ptr<std::uint8_t>() + (in_map ? (n * job.x.h() + h) * job.x.w() * channels : 0);
      for (std::int64_t s = 0; s < kw; ++s) {
        const std::int64_t w = left + s * o.dilation[1];
        taps[static_cast<std::size_t>(r * kw + s)] = in_map && w >= 0 && w < job.x.w() ? line + w * channels : padding;
      }
    }
    const std::int64_t at = (row * job.y.w() + q) * channels;
    pixel(job.result, taps, weights, groups_of(job.w), channels, offset,
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
