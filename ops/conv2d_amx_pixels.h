// What this is: pixels for the matrix units: where the operand tiles of dense convolutions come from. Part of
//   ops/conv2d_amx.cpp, whose notes explain tiles, chunks and parts; empty for processors without matrix units.
#pragma once

#include "ops/matrix_units.h"

#if defined(LIMBECK_AMX)
#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>

#include "ops/conv2d_tiles.h"

namespace limbeck::ops::amx {

inline constexpr std::int64_t kSide = kTileSide;
inline constexpr std::int64_t kChunk = 32;           // channels of a step
inline constexpr std::int64_t kRows = 2 * kSide;     // pixels of a pair of tiles
inline constexpr std::int64_t kColumns = 2 * kSide;  // results of a panel
inline constexpr std::int64_t kSums = kRows * kColumns;
inline constexpr std::int64_t kMostSteps = 64;  // taps of a kernel
/// Bytes of a map that is in the second-level cache when it was just written.
inline constexpr std::int64_t kNearBytes = 1 << 20;

/// bf16 numbers that stand for one number, see Note [f32 from bf16].
template <class T>
inline constexpr std::int64_t kParts = std::is_same_v<T, float> ? 2 : 1;

/// Sizes of packed weights.
/// Shapes:   w [O,I,KH,KW]
struct WeightShape {
  std::int64_t filters, steps, depth;  // of one step: channels, or those of a kernel row, or those of the kernel
  WeightShape(const Shape& w, const Conv2dOptions& options) : filters(w[0]), steps(w[2] * w[3]), depth(w[1]) {
    if (!merges_taps(conv_geometry(w, w, w, options, false), depth))
      return;  // of which only kernel and dilation matter
    steps = w[2];
    depth *= w[3];
    if (depth <= kSide && steps * depth <= kChunk) {
      depth *= steps;
      steps = 1;
    }
  }
  [[nodiscard]] std::int64_t step_chunks() const { return (depth + kChunk - 1) / kChunk; }
  [[nodiscard]] std::int64_t chunks() const { return steps * step_chunks(); }
  [[nodiscard]] std::int64_t panels() const { return (filters + kColumns - 1) / kColumns; }
  /// Tiles side by side in panel p.
  [[nodiscard]] std::int64_t width(std::int64_t p) const { return filters - p * kColumns > kSide ? 2 : 1; }
};

/// A stretch of chunks that lie together in the gathered pixels and in the weights.
/// Shapes:   none
struct Stretch {
  std::int64_t first, count;  ///< chunks of the weights
};

/// A pair of tiles of pixels for one part of the sum, gathered or where they lie in the map.
/// Shapes:   kRows pixels
struct ReadyPair {
  const char* pixels = nullptr;
  std::int64_t row_bytes = 0;  ///< of the map, if the pixels lie in it
  std::array<Stretch, kMostSteps> stretches{};
  std::size_t stretch_count = 0;
};

// Masked forms, here and below, because g++ 12 warns falsely about the others; a mask of ones costs nothing.
[[gnu::always_inline]] inline __m512 as_float(__m256i bf16) {
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, bf16), 16));
}

/// 32 numbers of one pixel: a row of one tile per part.
/// Shapes:   row: 64 bytes per part, parts 2 KiB apart
template <class T>
[[gnu::always_inline]] inline void put_numbers(__m512 a, __m512 b, char* row) {
  const auto high = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
  _mm512_store_si512(row, high);
  if constexpr (kParts<T> == 2) {
    struct Halves {
      __m256i a, b;
    };
    const auto halves = std::bit_cast<Halves>(high);
    const __m512 a_low = a - as_float(halves.a);
    const __m512 b_low = b - as_float(halves.b);
    _mm512_store_si512(row + 2 * kTileBytes, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b_low, a_low)));
  }
}

/// Half of such a row.
template <class T>
[[gnu::always_inline]] inline void put_half(__m512 v, char* row) {
  const auto high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
  _mm256_store_si256(reinterpret_cast<__m256i*>(row), high);
  if constexpr (kParts<T> == 2) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(row + 2 * kTileBytes),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v - as_float(high))));
  }
}

/// Up to 32 channels of one pixel: a row of one tile per part. `used` has a bit per channel.
[[gnu::always_inline]] inline void put_row(const bfloat16* x, std::uint32_t used, char* row) {
  _mm512_store_si512(row, _mm512_maskz_loadu_epi16(used, x));
}
[[gnu::always_inline]] inline void put_row(const float* x, std::uint32_t used, char* row) {
  put_numbers<float>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(used), x),
                     _mm512_maskz_loadu_ps(static_cast<__mmask16>(used >> 16U), x + kSide), row);
}
/// Up to 16 numbers into a part of such a row.
[[gnu::always_inline]] inline void put_stretch(const bfloat16* x, __mmask16 used, char* row) {
  _mm256_mask_storeu_epi16(row, used, _mm256_maskz_loadu_epi16(used, x));
}
[[gnu::always_inline]] inline void put_stretch(const float* x, __mmask16 used, char* row) {
  const __m512 v = _mm512_maskz_loadu_ps(used, x);
  const auto high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
  _mm256_mask_storeu_epi16(row, used, high);
  _mm256_mask_storeu_epi16(row + 2 * kTileBytes, used,
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v - as_float(high))));
}
/// Clears a row of one tile per part.
template <class T>
[[gnu::always_inline]] inline void clear_row(char* row) {
  for (std::int64_t part = 0; part < kParts<T>; ++part) _mm512_store_si512(row + part * 2 * kTileBytes, __m512i{});
}

/// The order in which pixels are numbered: that of the plan, in which a tap may be outside for a whole pair, or row by row.
enum class PixelOrder : std::uint8_t { kOfPlan, kNatural };

/// The operand tiles of the pixels of a map, for one convolution.
/// Shapes:   x as the source of `plan`, `channels` numbers per pixel, `map_bytes` in all
template <class T>
class PixelGatherer {
 public:
  PixelGatherer(const GatherPlan& plan, const WeightShape& w, const T* x, std::int64_t channels, std::int64_t map_bytes,
                PixelOrder order = PixelOrder::kOfPlan)
      : plan_(plan), g_(plan.geometry), x_(x), channels_(channels), step_chunks_(w.step_chunks()), depth_(w.depth) {
    taps_per_step_ = g_.kernel[0] * g_.kernel[1] / w.steps;
    natural_ = order == PixelOrder::kNatural || plan.order.empty();
    whole_kernel_ = taps_per_step_ > g_.kernel[1];
    // Pixels that lie a multiple of 512 bytes apart compete for few places of the cache, and read over and over from afar they
    // are slower than a copy.
    const bool spread = channels % 256 != 0;
    in_place_ = kParts<T> == 1 && channels % kChunk == 0 && spread && map_bytes <= kNearBytes;
  }

  /// Chunks [first, last) of the sum for `rows` pixels, at most kRows, from number `pixel` on; `out` has room for kRows.
  void gather(std::int64_t pixel, std::int64_t rows, std::int64_t first, std::int64_t last, char* out,
              ReadyPair& ready) const {
    ready.pixels = out;
    ready.row_bytes = 0;
    ready.stretch_count = 0;
    if (plan_.one_tap) {
      if (in_place_ && rows == kRows) {
        ready.pixels = reinterpret_cast<const char*>(x_ + pixel * channels_ + first * kChunk);
        ready.row_bytes = channels_ * static_cast<std::int64_t>(sizeof(T));
        append(ready, {first, last - first});
        return;
      }
      std::array<std::int64_t, kRows> from;
      for (std::int64_t i = 0; i < kRows; ++i)
        from[static_cast<std::size_t>(i)] = i < rows ? (pixel + i) * channels_ : -1;
      gather_rows(from, first, last, out);
      append(ready, {first, last - first});
      return;
    }
    std::array<Position, kRows> positions;
    find_positions(pixel, rows, positions);
    std::array<std::int64_t, kRows> from;
    for (std::int64_t step = first / step_chunks_; step * step_chunks_ < last; ++step) {
      const std::int64_t begin = std::max<std::int64_t>(first - step * step_chunks_, 0);
      const std::int64_t end = std::min(last - step * step_chunks_, step_chunks_);
      if (whole_kernel_) {
        merged_kernel(positions, rows, out);
      } else if (taps_per_step_ > 1) {
        merged(positions, rows, step, begin, end, out);
      } else {
        bool any = false;
        for (std::int64_t i = 0; i < kRows; ++i) {
          const auto at = static_cast<std::size_t>(i);
          from[at] = i < rows ? source(positions[at], step) : -1;
          any = any || from[at] >= 0;
        }
        if (!any) continue;
        gather_rows(from, begin, end, out);
      }
      append(ready, {step * step_chunks_ + begin, end - begin});
      out += (end - begin) * kParts<T> * 2 * kTileBytes;
    }
  }

 private:
  using Position = GatherPlan::Position;
  void find_positions(std::int64_t pixel, std::int64_t rows, std::array<Position, kRows>& positions) const {
    if (!natural_) {
      for (std::int64_t i = 0; i < rows; ++i)
        positions[static_cast<std::size_t>(i)] = plan_.position(plan_.pixel(pixel + i));
      return;
    }
    Position p = plan_.position(pixel);  // divides; the neighbours follow without
    for (std::int64_t i = 0; i < rows; ++i) {
      positions[static_cast<std::size_t>(i)] = p;
      if (++p.column < g_.width) continue;
      p.column = 0;
      if (++p.row < g_.height) continue;
      p.row = 0;
      p.image += g_.source_height;
    }
  }
  [[nodiscard]] std::int64_t source(const Position& p, std::int64_t tap) const {
    return plan_.source(p, tap, channels_);
  }
  [[nodiscard]] std::uint32_t used(std::int64_t chunk) const {
    const std::int64_t left = depth_ - chunk * kChunk;
    return left >= kChunk ? ~0U : (1U << static_cast<unsigned>(left)) - 1U;
  }

  /// Chunks [begin, end) of the pixels at the offsets `from` (negative: zeros). Tile by tile: the rows of a tile are neighbours in
  /// memory, while its counterparts in other chunks lie so far apart that they would compete for the same places in the cache.
  void gather_rows(const std::array<std::int64_t, kRows>& from, std::int64_t begin, std::int64_t end, char* out) const {
    for (std::int64_t c = begin; c < end; ++c, out += kParts<T> * 2 * kTileBytes) {
      const T* x = x_ + c * kChunk;
      const std::uint32_t mask = used(c);
      char* to = out;
      for (const std::int64_t at : from) {
        if (at >= 0) {
          put_row(x + at, mask, to);
        } else {
          clear_row<T>(to);
        }
        to += 64;
      }
    }
  }

  /// Chunks [begin, end) of the pixel at offset `from` (negative: zeros) into row i of their tiles.
  void row(std::int64_t from, std::int64_t i, std::int64_t begin, std::int64_t end, char* out) const {
    char* to = out + i * 64;
    constexpr std::int64_t kStep = kParts<T> * 2 * kTileBytes;
    if (from < 0) {
      for (std::int64_t c = begin; c < end; ++c, to += kStep) clear_row<T>(to);
      return;
    }
    const T* x = x_ + from + begin * kChunk;
    const std::int64_t whole = std::min(end, depth_ / kChunk);
    for (std::int64_t c = begin; c < whole; ++c, to += kStep, x += kChunk) put_row(x, ~0U, to);
    if (whole < end) put_row(x, used(whole), to);
  }

  /// The same for the merged taps of a kernel row: inside the map they lie side by side in memory.
  void merged(const std::array<Position, kRows>& positions, std::int64_t rows, std::int64_t step, std::int64_t begin,
              std::int64_t end, char* out) const {
    for (std::int64_t i = 0; i < kRows; ++i) {
      if (i >= rows) {
        row(-1, i, begin, end, out);
        continue;
      }
      const Position& p = positions[static_cast<std::size_t>(i)];
      const Line line = line_of(p, step);
      if (line.row < 0 || line.whole) {
        row(line.row < 0 ? -1 : line.first, i, begin, end, out);
        continue;
      }
      std::array<T, 16 * kChunk> buffer;  // kernel rows of fewer than 16 channels; longer ones are refused
      std::fill_n(buffer.data(), depth_, T(0.0F));
      copy_inside(p, step, buffer.data());
      char* to = out + i * 64;
      for (std::int64_t c = begin; c < end; ++c, to += kParts<T> * 2 * kTileBytes)
        put_row(buffer.data() + c * kChunk, used(c), to);
    }
  }

  /// The same where all taps of the kernel make one chunk.
  void merged_kernel(const std::array<Position, kRows>& positions, std::int64_t rows, char* out) const {
    const std::int64_t line_size = g_.kernel[1] * channels_;
    const auto mask = static_cast<__mmask16>((1U << static_cast<unsigned>(line_size)) - 1U);
    const std::int64_t step = g_.stride[1] * channels_;
    for (std::int64_t i = 0; i < kRows; ++i) clear_row<T>(out + i * 64);
    for (std::int64_t i = 0; i < rows;) {
      const Position& p = positions[static_cast<std::size_t>(i)];
      const std::int64_t count = neighbours(positions, i, rows);
      for (std::int64_t k = 0; k < g_.kernel[0]; ++k) {
        const Line line = line_of(p, k);
        char* to = out + i * 64 + k * line_size * 2;
        if (line.row < 0) continue;
        if (line.whole) {
          const T* x = x_ + line.first;
          for (std::int64_t j = 0; j < count; ++j, x += step, to += 64) put_stretch(x, mask, to);
        } else {
          std::array<T, kSide> buffer{};
          copy_inside(p, k, buffer.data());
          put_stretch(buffer.data(), mask, to);
        }
      }
      i += count;
    }
  }

  /// How many pixels from number i on lie side by side and see all columns of the kernel; 1 if that one does not.
  [[nodiscard]] std::int64_t neighbours(const std::array<Position, kRows>& positions, std::int64_t i,
                                        std::int64_t rows) const {
    const Position& p = positions[static_cast<std::size_t>(i)];
    std::int64_t count = 0;
    while (i + count < rows) {
      const Position& q = positions[static_cast<std::size_t>(i + count)];
      if (q.image != p.image || q.row != p.row || q.column != p.column + count || !line_of(q, 0).whole) break;
      ++count;
    }
    return std::max<std::int64_t>(count, 1);
  }

  /// What a row of the kernel sees.
  struct Line {
    std::int64_t row;    ///< of the source, or -1
    bool whole;          ///< no column is outside
    std::int64_t first;  ///< offset of its first number, if whole
  };
  [[nodiscard]] Line line_of(const Position& p, std::int64_t kernel_row) const {
    const std::int64_t row = plan_.source_row[static_cast<std::size_t>(kernel_row * g_.height + p.row)];
    const std::int64_t left = plan_.source_column[static_cast<std::size_t>(p.column)];
    const std::int64_t right = plan_.source_column[static_cast<std::size_t>((g_.kernel[1] - 1) * g_.width + p.column)];
    return {row, left >= 0 && right >= 0, ((p.image + row) * g_.source_width + left) * channels_};
  }
  /// The numbers of its columns that are inside, each at its place in `out`.
  void copy_inside(const Position& p, std::int64_t kernel_row, T* out) const {
    for (std::int64_t k = 0; k < g_.kernel[1]; ++k) {
      const std::int64_t from = source(p, kernel_row * g_.kernel[1] + k);
      if (from >= 0) std::copy_n(x_ + from, channels_, out + k * channels_);
    }
  }

  static void append(ReadyPair& ready, const Stretch& s) {
    if (ready.stretch_count > 0) {
      Stretch& last = ready.stretches[ready.stretch_count - 1];
      if (last.first + last.count == s.first) {
        last.count += s.count;
        return;
      }
    }
    ready.stretches[ready.stretch_count++] = s;
  }

  const GatherPlan& plan_;
  const GatherGeometry& g_;
  const T* x_;
  std::int64_t channels_, step_chunks_, depth_, taps_per_step_ = 1;
  bool natural_ = false, whole_kernel_ = false, in_place_ = false;
};

}  // namespace limbeck::ops::amx

#endif
