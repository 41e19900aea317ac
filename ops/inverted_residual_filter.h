// What this is: the middle of an inverted residual on matrix units: a few rows of the wide map, and the filter that runs over them. Part of
//   ops/inverted_residual_amx.cpp, whose notes explain panels and ring; empty for processors without matrix units.
#pragma once

#include "ops/conv2d_amx_pixels.h"

#if defined(LIMBECK_AMX)
#include <array>
#include <limits>

#include "ops/depthwise_taps.h"
#include "ops/simd.h"
#include "ops/unroll.h"

namespace limbeck::ops::amx {

/// Channels that go through ring and filter together: a panel, or half of it.
enum class Width : std::uint8_t { kHalf = 1, kPanel = 2 };
template <Width W>
inline constexpr std::int64_t kVectors = static_cast<std::int64_t>(W);
template <Width W>
inline constexpr std::int64_t kPixel = kVectors<W>* kSide;  // floats of the ring
template <Width W>
inline constexpr std::int64_t kBlock = 16 / kVectors<W>;  // pixels that are filtered together: 16 vectors of sums

/// Rows of a map of few channels in f32, as many as are needed at a time, between columns of zeros.
struct Ring {
  float* memory;
  std::int64_t rows, width, padding;  // width: with the zeros
  template <Width W>
  [[nodiscard]] float* row(std::int64_t r) const {
    return memory + r % rows * width * kPixel<W>;
  }
};

/// A row of the filter over a row of the ring.
struct FilterRow {
  const float* pixels;
  const float* weights;
};

/// Everything that the pixels of one result row share.
struct FilterJob {
  std::array<FilterRow, kMostDepthwiseTaps> rows;
  std::size_t count = 0;
  std::int64_t taps, step, spacing;  // of a filter row
  const float* bias;
  Activation act;
};

/// An activation as two bounds, the same instructions for all; NaN stays NaN.
class Bounds {
 public:
  explicit Bounds(Activation act)
      : low_(simd::broadcast(act == Activation::kNone ? -std::numeric_limits<float>::infinity() : 0.0F)),
        high_(simd::broadcast(act == Activation::kRelu6 ? 6.0F : std::numeric_limits<float>::infinity())) {}
  [[gnu::always_inline]] simd::Vec operator()(simd::Vec v) const {
    return simd::at_most(high_, simd::at_least(low_, v));
  }

 private:
  simd::Vec low_, high_;
};

/// A vector of every panel or half panel of a pixel, or of several pixels.
template <Width W>
using Vectors = std::array<simd::Vec, static_cast<std::size_t>(kVectors<W>)>;
template <Width W>
using BlockSums = std::array<Vectors<W>, static_cast<std::size_t>(kBlock<W>)>;

template <Width W>
[[gnu::always_inline]] inline Vectors<W> load_vectors(const float* p) {
  Vectors<W> v;
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = simd::load(p + static_cast<std::int64_t>(i) * kSide);
  return v;
}

/// sums += a * b
template <Width W>
[[gnu::always_inline]] inline void add_product(const Vectors<W>& a, const Vectors<W>& b, Vectors<W>& sums) {
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += a[i] * b[i];
}

/// Filters of three taps a row: every column of the ring is read once per filter row.
template <std::int64_t Step, std::int64_t Spacing>
struct FilterThree {
  template <Width W>
  [[gnu::always_inline]] static void add(const FilterJob& job, std::int64_t t, BlockSums<W>& sums) {
    for (std::size_t r = 0; r < job.count; ++r) {
      const std::array<Vectors<W>, 3> weights{load_vectors<W>(job.rows[r].weights),
                                              load_vectors<W>(job.rows[r].weights + kColumns),
                                              load_vectors<W>(job.rows[r].weights + 2 * kColumns)};
      const float* x = job.rows[r].pixels + t * Step * kPixel<W>;
      for_each_constant<(kBlock<W> - 1) * Step + 2 * Spacing + 1>([&](auto column) LIMBECK_INLINE_LAMBDA {
        constexpr std::int64_t kColumn = decltype(column)::value;
        const Vectors<W> pixel = load_vectors<W>(x + kColumn * kPixel<W>);
        for_each_constant<3>([&](auto tap) LIMBECK_INLINE_LAMBDA {
          constexpr std::int64_t kAt = kColumn - decltype(tap)::value * Spacing;
          if constexpr (kAt >= 0 && kAt % Step == 0 && kAt / Step < kBlock<W>) {
            add_product<W>(weights[static_cast<std::size_t>(tap)], pixel, sums[static_cast<std::size_t>(kAt / Step)]);
          }
        });
      });
    }
  }
};

/// Any filter, and any number of pixels.
struct FilterAny {
  template <Width W, std::size_t Pixels>
  [[gnu::always_inline]] static void add(const FilterJob& job, std::int64_t t, std::array<Vectors<W>, Pixels>& sums) {
    for (std::size_t r = 0; r < job.count; ++r) {
      for (std::int64_t k = 0; k < job.taps; ++k) {
        const Vectors<W> weights = load_vectors<W>(job.rows[r].weights + k * kColumns);
        const float* x = job.rows[r].pixels + (t * job.step + k * job.spacing) * kPixel<W>;
        for_each_constant<static_cast<std::int64_t>(Pixels)>([&](auto i) LIMBECK_INLINE_LAMBDA {
          add_product<W>(weights, load_vectors<W>(x + i * job.step * kPixel<W>), sums[static_cast<std::size_t>(i)]);
        });
      }
    }
  }
};

template <class T, Width W>
[[gnu::always_inline]] inline void put_filtered(const Bounds& bounds, const Vectors<W>& sums, char* operand) {
  if constexpr (W == Width::kPanel) {
    put_numbers<T>(bounds(sums[0]), bounds(sums[1]), operand);
  } else {
    put_half<T>(bounds(sums[0]), operand);
  }
}

/// Filters pixels 0 .. count-1 of a row, count >= kBlock; operand(t) is the place of pixel t.
template <class T, Width W, class Filter, class Operand>
[[gnu::noinline]] void filter_blocks(const FilterJob& job, std::int64_t count, const Operand& operand) {
  const Vectors<W> bias = load_vectors<W>(job.bias);
  const Bounds bounds(job.act);
  for (std::int64_t begin = 0; begin < count; begin += kBlock<W>) {
    const std::int64_t t = std::min(begin, count - kBlock<W>);  // pixels filtered twice give the same numbers twice
    BlockSums<W> sums;
    for_each_constant<kBlock<W>>([&](auto i) LIMBECK_INLINE_LAMBDA { sums[static_cast<std::size_t>(i)] = bias; });
    Filter::template add<W>(job, t, sums);
    for_each_constant<kBlock<W>>([&](auto i) LIMBECK_INLINE_LAMBDA {
      put_filtered<T, W>(bounds, sums[static_cast<std::size_t>(i)], operand(t + i));
    });
  }
}

/// The same for rows of fewer pixels.
template <class T, Width W, class Operand>
void filter_pixels(const FilterJob& job, std::int64_t count, const Operand& operand) {
  for (std::int64_t t = 0; t < count; ++t) {
    std::array<Vectors<W>, 1> sums{load_vectors<W>(job.bias)};
    FilterAny::add<W>(job, t, sums);
    put_filtered<T, W>(Bounds(job.act), sums[0], operand(t));
  }
}

/// Filters pixels 0 .. count-1 of a row, whatever the filter; operand(t) is the place of pixel t.
/// Shapes:   none
template <class T, Width W, class Operand>
void filter_row(const FilterJob& job, std::int64_t count, const Operand& operand) {
  const auto three = [&](std::int64_t step, std::int64_t spacing) {
    return job.taps == 3 && job.step == step && job.spacing == spacing;
  };
  if (count < kBlock<W>) {
    filter_pixels<T, W>(job, count, operand);
  } else if (three(1, 1)) {
    filter_blocks<T, W, FilterThree<1, 1>>(job, count, operand);
  } else if (three(2, 1)) {
    filter_blocks<T, W, FilterThree<2, 1>>(job, count, operand);
  } else if (three(1, 2)) {
    filter_blocks<T, W, FilterThree<1, 2>>(job, count, operand);
  } else {
    filter_blocks<T, W, FilterAny>(job, count, operand);
  }
}

}  // namespace limbeck::ops::amx

#endif
