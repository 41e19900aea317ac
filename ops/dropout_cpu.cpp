// Fast dropout. The cost is Philox, ten rounds of integer multiplications, so the random words of a row of channels are
// computed in a loop without branches that the compiler turns into vector code: lane c evaluates the counter of its own
// logical index. A counter yields four words, which belong to four neighbouring pixels of one channel; where the maps
// are aligned to that, four pixels are done at once, otherwise (area not a multiple of 4) three words are thrown away.
#include <array>

#include "core/parallel.h"
#include "ops/dropout_kernels.h"

namespace limbeck::ops {
namespace {

/// Philox 4x32-10 for one counter, as in core/rng.cpp (a test compares them), in 64-bit registers: a 32 x 32 bit product
/// then needs no shuffling of vector lanes. Calls `use(w0, w1, w2, w3)`.
template <class Use>
inline void philox(std::uint64_t counter, std::uint64_t stream, std::uint64_t seed, const Use& use) noexcept {
  constexpr std::uint64_t kLow = 0xFFFFFFFFU;
  std::uint64_t c0 = counter & kLow;
  std::uint64_t c1 = counter >> 32U;
  std::uint64_t c2 = stream & kLow;
  std::uint64_t c3 = stream >> 32U;
  std::uint64_t k0 = seed & kLow;
  std::uint64_t k1 = seed >> 32U;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = (p1 >> 32U) ^ c1 ^ k0;
    c1 = p1 & kLow;
    c2 = (p0 >> 32U) ^ c3 ^ k1;
    c3 = p0 & kLow;
    k0 = (k0 + 0x9E3779B9U) & kLow;
    k1 = (k1 + 0xBB67AE85U) & kLow;
  }
  use(c0, c1, c2, c3);
}

constexpr std::int64_t kChunk = 256;
using Row = std::array<float, kChunk>;

/// What the two loops below share: a word becomes the factor `scale` (kept) or 0 (dropped).
struct Draw {
  explicit Draw(const DropoutArgs& args)
      : offset(args.generator.offset()),
        stream(args.generator.stream()),
        seed(args.generator.seed()),
        threshold(args.threshold()),
        scale(static_cast<float>(args.scale())) {}

  [[nodiscard]] float factor(std::uint64_t word) const noexcept { return (word >> 8U) >= threshold ? scale : 0.0F; }

  /// factors[i] of logical index first + i * step.
  void one(std::int64_t first, std::int64_t step, std::int64_t n, float* factors) const {
    const std::uint64_t base = offset + static_cast<std::uint64_t>(first);
    const Draw d = *this;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t index = base + static_cast<std::uint64_t>(i * step);
      philox(index >> 2U, d.stream, d.seed,
             [&](std::uint64_t w0, std::uint64_t w1, std::uint64_t w2, std::uint64_t w3) {
               const std::uint64_t low = (index & 1U) != 0 ? w1 : w0;
               const std::uint64_t high = (index & 1U) != 0 ? w3 : w2;
               factors[i] = d.factor((index & 2U) != 0 ? high : low);
             });
    }
  }

  /// factors[k][i] of logical index first + k + i * step, where offset + first and step are multiples of 4.
  void four(std::int64_t first, std::int64_t step, std::int64_t n, std::array<Row, 4>& factors) const {
    const std::uint64_t base = (offset + static_cast<std::uint64_t>(first)) >> 2U;
    const std::int64_t stride = step / 4;
    const Draw d = *this;
    float* const f0 = factors[0].data();
    float* const f1 = factors[1].data();
    float* const f2 = factors[2].data();
    float* const f3 = factors[3].data();
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      philox(base + static_cast<std::uint64_t>(i * stride), d.stream, d.seed,
             [&](std::uint64_t w0, std::uint64_t w1, std::uint64_t w2, std::uint64_t w3) {
               f0[i] = d.factor(w0);
               f1[i] = d.factor(w1);
               f2[i] = d.factor(w2);
               f3[i] = d.factor(w3);
             });
    }
  }

  std::uint64_t offset, stream, seed;
  std::uint64_t threshold;
  float scale;
};

template <class T>
void multiply_row(const T* x, const float* factor, T* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    // A dropped element is zero even where x is infinite.
    const float v = static_cast<float>(x[i]) * factor[i];
    y[i] = static_cast<T>(factor[i] == 0.0F ? 0.0F : v);
  }
}

/// Pixels first..last (counted over all samples) of a channels-last map with an own decision per element.
template <class T>
void drop_elements(const Draw& draw, const T* x, T* y, std::int64_t c, std::int64_t area, std::int64_t first,
                   std::int64_t last) {
  std::array<Row, 4> factors;
  for (std::int64_t c0 = 0; c0 < c; c0 += kChunk) {
    const std::int64_t width = std::min(kChunk, c - c0);
    for (std::int64_t p = first; p < last;) {
      const std::int64_t index = (p / area * c + c0) * area + p % area;  // logical, of the chunk's first channel
      const bool aligned = area % 4 == 0 && (draw.offset + static_cast<std::uint64_t>(index)) % 4 == 0 &&
                           p % area + 4 <= area && p + 4 <= last;
      if (aligned) {
        draw.four(index, area, width, factors);
      } else {
        draw.one(index, area, width, factors[0].data());
      }
      const std::int64_t pixels = aligned ? 4 : 1;
      for (std::int64_t k = 0; k < pixels; ++k, ++p) {
        multiply_row(x + p * c + c0, factors[static_cast<std::size_t>(k)].data(), y + p * c + c0, width);
      }
    }
  }
}

/// The same with one decision per sample and channel.
template <class T>
void drop_channels(const Draw& draw, const T* x, T* y, std::int64_t c, std::int64_t area, std::int64_t first,
                   std::int64_t last) {
  Row factors;
  for (std::int64_t c0 = 0; c0 < c; c0 += kChunk) {
    const std::int64_t width = std::min(kChunk, c - c0);
    for (std::int64_t p = first; p < last; ++p) {
      if (p == first || p % area == 0) draw.one(p / area * c + c0, 1, width, factors.data());
      multiply_row(x + p * c + c0, factors.data(), y + p * c + c0, width);
    }
  }
}

/// Row-major memory: the logical index is the position.
template <class T>
void drop_row_major(const Draw& draw, const T* x, T* y, std::int64_t first, std::int64_t last) {
  Row factors;
  for (std::int64_t i = first; i < last; i += kChunk) {
    const std::int64_t n = std::min(kChunk, last - i);
    draw.one(i, 1, n, factors.data());
    multiply_row(x + i, factors.data(), y + i, n);
  }
}

}  // namespace

void dropout_cpu(const TensorView& x, const TensorView& y, const DropoutArgs& args) {
  const Draw draw(args);
  constexpr std::int64_t kGrain = 4096;
  visit_fast_dtype("dropout", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto* xp = x.ptr<T>();
    auto* yp = y.ptr<T>();
    if (x.shape.size() != 4) {
      parallel_for(x.numel(), kGrain,
                   [&](std::int64_t first, std::int64_t last) { drop_row_major(draw, xp, yp, first, last); });
      return;
    }
    const std::int64_t area = x.h() * x.w();
    const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(x.c(), 1));
    parallel_for(x.n() * area, grain, [&](std::int64_t first, std::int64_t last) {
      if (args.whole_channels) {
        drop_channels(draw, xp, yp, x.c(), area, first, last);
      } else {
        drop_elements(draw, xp, yp, x.c(), area, first, last);
      }
    });
  });
}

}  // namespace limbeck::ops
