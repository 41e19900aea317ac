// What this is: the innermost loops of the dense convolutions: a tile of kRows x kColumns results stays in registers
//   while a long sum runs over k. Everything else (which pixels, which weights) is the caller's.
// What it is not: a general matrix product; that is ops/matmul.h.
// Read next: ops/conv2d_tiles.cpp (forward and data gradient), ops/conv2d_tiles_weights.cpp (weight gradient).
//
// Note [tile]
//   result[i][j] = sum_k a[i][k] * b[k][j]. Per k the tile needs kRows broadcasts of a and two vectors of b for
//   2 kRows multiply-adds, so with enough rows the arithmetic units and not the loads set the pace. 12 x 2 vectors plus
//   the operands fit the 32 registers of AVX-512, 6 x 2 the 16 of AVX2.
// Note [pairs]
//   bf16 hardware multiplies pairs: acc += a[k] b[k] + a[k+1] b[k+1] with f32 sums. Both operands therefore keep two
//   neighbouring k side by side: b as [k/2][column][2], a naturally, because k runs over channels. Without that
//   instruction the pair is split into two f32 multiply-adds by shifts.
// Note [panels]
//   b is packed into panels of kColumns columns (the last one may be kLanes wide): panel p holds [k][columns of p].
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ops/simd.h"

namespace limbeck::ops::tile {

using simd::Bits;
using simd::kLanes;
using simd::Vec;

#if defined(__AVX512F__)
inline constexpr int kRows = 12;
#else
inline constexpr int kRows = 6;
#endif
inline constexpr std::int64_t kColumns = 2 * kLanes;

/// Values of k that one multiply consumes: 2 for bf16, see Note [pairs].
/// Shapes:   none
template <class T>
inline constexpr std::int64_t kPair = std::is_same_v<T, bfloat16> ? 2 : 1;

template <class T>
constexpr std::int64_t round_up_pair(std::int64_t k) {
  return (k + kPair<T> - 1) / kPair<T> * kPair<T>;
}

/// One operand register: a vector of floats, or of bf16 pairs kept as 32-bit lanes.
template <class T>
[[gnu::always_inline]] inline Vec load_operand(const T* p) noexcept {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
[[gnu::always_inline]] inline Vec broadcast_operand(const T* p) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    return simd::broadcast(*p);
  } else {
    std::uint32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return std::bit_cast<Vec>(Bits{} + pair);
  }
}
template <class T>
[[gnu::always_inline]] inline Vec multiply_add(Vec a, Vec b, Vec sum) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    return sum + a * b;
  } else {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(a), std::bit_cast<__m512bh>(b));
#else
    const auto ua = std::bit_cast<Bits>(a);
    const auto ub = std::bit_cast<Bits>(b);
    sum += std::bit_cast<Vec>(ua << 16U) * std::bit_cast<Vec>(ub << 16U);
    return sum + std::bit_cast<Vec>(ua & 0xFFFF0000U) * std::bit_cast<Vec>(ub & 0xFFFF0000U);
#endif
  }
}

/// A stretch of the sum: `length` values of k (a multiple of kPair) that lie together in both operands.
struct Segment {
  std::int64_t a;  ///< offset within a row of a
  std::int64_t b;  ///< first k within the panel
  std::int64_t length;
};

/// Where a finished tile goes: y[row] = act(bias + sum + residual[row]).
template <class T>
struct Finish {
  T* y = nullptr;                            ///< first column of the tile, pixel 0 of the map
  const T* residual = nullptr;               ///< likewise, or null
  const std::int64_t* row_offset = nullptr;  ///< [rows] from pixel 0 to the row's pixel
  const float* bias = nullptr;               ///< of the tile's columns, or null
  Activation act = Activation::kNone;
  std::int64_t columns = kColumns;  ///< how many exist
};

/// The last panel: fewer columns than the tile has.
template <class T, int Vectors>
void finish_some(const float* sum, int rows, const Finish<T>& f) {
  for (int i = 0; i < rows; ++i, sum += Vectors * kLanes) {
    for (std::int64_t c = 0; c < f.columns; ++c) {
      const std::int64_t at = f.row_offset[i] + c;
      const float residual = f.residual != nullptr ? static_cast<float>(f.residual[at]) : 0.0F;
      f.y[at] = T(activate(f.act, sum[c] + residual));
    }
  }
}

// Every loop over the tile below is unrolled by force: only then does the compiler keep the tile in registers.
template <class T, int Rows, int Vectors>
[[gnu::always_inline]] inline void finish(Vec (&sum)[Rows][Vectors], const Finish<T>& f) {
  if (f.columns < Vectors * kLanes) {
    alignas(64) float buffer[Rows * Vectors * kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) simd::store(buffer + (i * Vectors + j) * kLanes, sum[i][j]);
    }
    finish_some<T, Vectors>(buffer, Rows, f);
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    T* const y = f.y + f.row_offset[i];
    if (f.residual != nullptr) {
      const T* const residual = f.residual + f.row_offset[i];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += simd::load(residual + j * kLanes);
    }
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) simd::store(y + j * kLanes, simd::activate(f.act, sum[i][j]));
  }
}

/// The product of `Rows` rows of a (row i begins at a + i * row_stride) with one panel, then finish().
template <class T, int Rows, int Vectors>
void multiply(const T* a, std::int64_t row_stride, const T* panel, const Segment* segments, std::size_t segment_count,
              const Finish<T>& f) {
  constexpr std::int64_t kPanel = Vectors * kLanes;
  Vec start[Vectors] = {};
  if (f.bias != nullptr) {
    for (int j = 0; j < Vectors; ++j) {
      const std::int64_t count = std::clamp<std::int64_t>(f.columns - j * kLanes, 0, kLanes);
      start[j] = count == kLanes ? simd::load(f.bias + j * kLanes) : simd::load_some(f.bias + j * kLanes, count);
    }
  }
  Vec sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = start[j];
  }
  for (std::size_t s = 0; s < segment_count; ++s) {
    const T* ak = a + segments[s].a;
    const T* bk = panel + segments[s].b * kPanel;
    const T* const end = ak + segments[s].length;
    for (; ak != end; ak += kPair<T>, bk += kPanel * kPair<T>) {
      Vec b[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) b[j] = load_operand(bk + j * kLanes * kPair<T>);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        const Vec ai = broadcast_operand(ak + i * row_stride);
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add<T>(ai, b[j], sum[i][j]);
      }
    }
  }
  finish<T, Rows, Vectors>(sum, f);
}

/// The product of a transposed operand: a[k][row], rows side by side. `y` is f32 and is overwritten or added to.
template <class T, int Rows, int Vectors>
void multiply_outer(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride, std::int64_t length, bool add,
                    float* y, std::int64_t y_stride, std::int64_t columns) {
  Vec sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec{};
  }
  for (std::int64_t k = 0; k < length; k += kPair<T>, a += a_stride, b += b_stride) {
    Vec bk[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) bk[j] = load_operand(b + j * kLanes * kPair<T>);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vec ai = broadcast_operand(a + i * kPair<T>);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add<T>(ai, bk[j], sum[i][j]);
    }
  }
  if (columns >= Vectors * kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      float* const out = y + i * y_stride;
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        simd::store(out + j * kLanes, add ? simd::load(out + j * kLanes) + sum[i][j] : sum[i][j]);
      }
    }
    return;
  }
  alignas(64) float buffer[Rows * Vectors * kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) simd::store(buffer + (i * Vectors + j) * kLanes, sum[i][j]);
  }
  for (int i = 0; i < Rows; ++i) {
    for (std::int64_t c = 0; c < columns; ++c) {
      y[i * y_stride + c] = buffer[i * Vectors * kLanes + c] + (add ? y[i * y_stride + c] : 0.0F);
    }
  }
}

template <class T>
using MultiplyFn = void (*)(const T*, std::int64_t, const T*, const Segment*, std::size_t, const Finish<T>&);
template <class T>
using MultiplyOuterFn = void (*)(const T*, std::int64_t, const T*, std::int64_t, std::int64_t, bool, float*,
                                 std::int64_t, std::int64_t);

namespace detail {
template <class T, int Vectors, int... I>
constexpr std::array<MultiplyFn<T>, kRows> multiply_table(std::integer_sequence<int, I...>) {
  return {multiply<T, I + 1, Vectors>...};
}
template <class T, int Vectors, int... I>
constexpr std::array<MultiplyOuterFn<T>, kRows> outer_table(std::integer_sequence<int, I...>) {
  return {multiply_outer<T, I + 1, Vectors>...};
}
}  // namespace detail

/// kernel[rows - 1], for panels of two vectors and of one.
template <class T>
struct Kernels {
  using Rows = std::make_integer_sequence<int, kRows>;
  static constexpr std::array<MultiplyFn<T>, kRows> wide = detail::multiply_table<T, 2>(Rows{});
  static constexpr std::array<MultiplyFn<T>, kRows> narrow = detail::multiply_table<T, 1>(Rows{});
};
template <class T>
struct OuterKernels {
  using Rows = std::make_integer_sequence<int, kRows>;
  static constexpr std::array<MultiplyOuterFn<T>, kRows> wide = detail::outer_table<T, 2>(Rows{});
  static constexpr std::array<MultiplyOuterFn<T>, kRows> narrow = detail::outer_table<T, 1>(Rows{});
};

/// How `columns` columns are cut into panels: all kColumns wide, the last kLanes if that is enough for it.
struct Panels {
  std::int64_t columns;
  [[nodiscard]] std::int64_t count() const { return (columns + kColumns - 1) / kColumns; }
  [[nodiscard]] std::int64_t width(std::int64_t p) const {
    return columns - p * kColumns <= kLanes ? kLanes : kColumns;
  }
  /// Columns that exist in panel p.
  [[nodiscard]] std::int64_t used(std::int64_t p) const { return std::min(kColumns, columns - p * kColumns); }
  /// Columns with the padding of the last panel.
  [[nodiscard]] std::int64_t padded() const { return (count() - 1) * kColumns + width(count() - 1); }
};

}  // namespace limbeck::ops::tile
