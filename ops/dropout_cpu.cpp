// Fast dropout. The cost is Philox, 10 rounds of integer multiplications, so the random words of a row of channels are
// computed in a loop without branches that the compiler turns into vector code: lane c evaluates the counter of its own
// logical index. Three of the four words of a counter are thrown away; in exchange nothing depends on how the row lies
// relative to blocks of four.
#include <array>

#include "core/parallel.h"
#include "ops/dropout_kernels.h"

namespace limbeck::ops {
namespace {

/// Word number `index` of the sequence; must equal Generator::word_at (a test compares them).
inline std::uint32_t philox_word(std::uint64_t index, std::uint64_t stream, std::uint64_t seed) noexcept {
  const std::uint64_t block = index >> 2U;
  auto c0 = static_cast<std::uint32_t>(block);
  auto c1 = static_cast<std::uint32_t>(block >> 32U);
  auto c2 = static_cast<std::uint32_t>(stream);
  auto c3 = static_cast<std::uint32_t>(stream >> 32U);
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32U);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32U) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32U) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const auto lane = static_cast<std::uint32_t>(index & 3U);
  const std::uint32_t low = (lane & 1U) != 0 ? c1 : c0;
  const std::uint32_t high = (lane & 1U) != 0 ? c3 : c2;
  return (lane & 2U) != 0 ? high : low;
}

/// factor[i] = scale if the element with logical index first + i * step is kept, else 0.
void fill_factors(const DropoutArgs& args, std::int64_t first, std::int64_t step, std::int64_t n, float* factor) {
  const std::uint64_t base = args.generator.offset() + static_cast<std::uint64_t>(first);
  const auto stride = static_cast<std::uint64_t>(step);
  const std::uint64_t stream = args.generator.stream();
  const std::uint64_t seed = args.generator.seed();
  const std::uint32_t threshold = args.threshold();
  const auto scale = static_cast<float>(args.scale());
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t word = philox_word(base + static_cast<std::uint64_t>(i) * stride, stream, seed);
    factor[i] = (word >> 8U) >= threshold ? scale : 0.0F;
  }
}

template <class T>
void multiply_row(const T* x, const float* factor, T* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    // A dropped element is zero even where x is infinite.
    const float v = static_cast<float>(x[i]) * factor[i];
    y[i] = static_cast<T>(factor[i] == 0.0F ? 0.0F : v);
  }
}

constexpr std::int64_t kChunk = 512;

/// `pixels` positions of `c` channels in channels-last memory, beginning with position `first` of all samples.
template <class T>
void drop_pixels(const DropoutArgs& args, const T* x, T* y, std::int64_t c, std::int64_t area, std::int64_t first,
                 std::int64_t last) {
  std::array<float, kChunk> factor;
  for (std::int64_t c0 = 0; c0 < c; c0 += kChunk) {
    const std::int64_t width = std::min(kChunk, c - c0);
    for (std::int64_t p = first; p < last; ++p) {
      const std::int64_t n = p / area;
      if (!args.whole_channels) {
        fill_factors(args, (n * c + c0) * area + p % area, area, width, factor.data());
      } else if (p == first || p % area == 0) {
        fill_factors(args, n * c + c0, 1, width, factor.data());
      }
      multiply_row(x + p * c + c0, factor.data(), y + p * c + c0, width);
    }
  }
}

}  // namespace

void dropout_cpu(const TensorView& x, const TensorView& y, const DropoutArgs& args) {
  visit_fast_dtype("dropout", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    // Any other rank than 4 is row-major: one position with all elements as its channels.
    const bool map = x.shape.size() == 4;
    const std::int64_t c = map ? x.c() : x.numel();
    const std::int64_t area = map ? x.h() * x.w() : 1;
    if (map) {
      const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(c, 1));
      parallel_for(x.n() * area, grain, [&](std::int64_t first, std::int64_t last) {
        drop_pixels(args, x.ptr<T>(), y.ptr<T>(), c, area, first, last);
      });
      return;
    }
    parallel_for(c, 4096, [&](std::int64_t first, std::int64_t last) {
      std::array<float, kChunk> factor;
      for (std::int64_t i = first; i < last; i += kChunk) {
        const std::int64_t n = std::min(kChunk, last - i);
        fill_factors(args, i, 1, n, factor.data());
        multiply_row(x.ptr<T>() + i, factor.data(), y.ptr<T>() + i, n);
      }
    });
  });
}

}  // namespace limbeck::ops
