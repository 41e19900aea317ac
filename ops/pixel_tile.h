// What this is: a tile of pixels turned on its side. A channels-last map stores the C values of a pixel together; a sum
//   over classes would then run along a short vector of, say, 19. Transposed to [channel][pixel], every loop of a
//   per-pixel kernel runs over kTilePixels neighbours instead, with no remainder, whatever C is.
// What it is not: a layout of tensors. A tile lives in a few KiB of cache between two loops.
// Read next: ops/softmax_cpu.cpp, the shortest user.
//
// Note [8x8 transpose]
//   Rows are moved through blocks of 8 pixels x 8 channels. Interleaving row i with row i + 4 three times transposes an
//   8x8 block; the compiler maps each interleave to one or two shuffles. If C is not a multiple of 8, the last block
//   starts at C - 8 and overlaps the one before: the shared channels are moved twice, and there are no masks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "core/dtype.h"

namespace limbeck::ops {

inline constexpr std::int64_t kTilePixels = 32;

namespace tile_detail {

using Float8 = float __attribute__((vector_size(32)));
using Int8 = std::int32_t __attribute__((vector_size(32)));
using Bits8 = std::uint32_t __attribute__((vector_size(32)));
using Half8 = std::uint16_t __attribute__((vector_size(16)));

inline void load8(const float* p, Float8& v) { std::memcpy(&v, p, sizeof(v)); }
inline void load8(const bfloat16* p, Float8& v) {
  Half8 half;
  std::memcpy(&half, p, sizeof(half));
  const Bits8 bits = __builtin_convertvector(half, Bits8) << 16;
  std::memcpy(&v, &bits, sizeof(v));
}
inline void store8(float* p, const Float8& v) { std::memcpy(p, &v, sizeof(v)); }
inline void store8(bfloat16* p, const Float8& v) {  // rounds as bfloat16(float) does
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
  const __m128bh half = _mm256_cvtneps_pbh(v);
#else
  Bits8 u;
  std::memcpy(&u, &v, sizeof(v));
  const Bits8 rounded = (u + 0x7FFFU + ((u >> 16) & 1U)) >> 16;
  const Int8 is_nan = (u & 0x7FFFFFFFU) > 0x7F800000U;
  const Bits8 mask = (Bits8)is_nan;
  const Half8 half = __builtin_convertvector((mask & ((u >> 16) | 0x40U)) | (~mask & rounded), Half8);
#endif
  std::memcpy(static_cast<void*>(p), &half, sizeof(half));
}

inline void transpose8(Float8 (&r)[8]) {
  for (int step = 0; step < 3; ++step) {
    Float8 t[8];
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = __builtin_shufflevector(r[i], r[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; ++i) r[i] = t[i];
  }
}

}  // namespace tile_detail

/// tile[ch * kTilePixels + p] = x[p * c + ch]; pixels from `count` on become 0, so that arithmetic on them is harmless.
/// Shapes:   x `count` pixels of c channels; tile [c][kTilePixels], count <= kTilePixels
template <class T>
inline void load_tile(const T* x, std::int64_t c, std::int64_t count, float* tile) {
  const std::int64_t whole = c >= 8 ? count / 8 * 8 : 0;
  for (std::int64_t p = 0; p < whole; p += 8) {
    for (std::int64_t at = 0; at < c; at += 8) {
      const std::int64_t ch = std::min(at, c - 8);
      tile_detail::Float8 r[8];
      for (int i = 0; i < 8; ++i) tile_detail::load8(x + (p + i) * c + ch, r[i]);
      tile_detail::transpose8(r);
      for (int i = 0; i < 8; ++i) tile_detail::store8(tile + (ch + i) * kTilePixels + p, r[i]);
    }
  }
  for (std::int64_t ch = 0; ch < c; ++ch) {
    for (std::int64_t p = whole; p < count; ++p) tile[ch * kTilePixels + p] = static_cast<float>(x[p * c + ch]);
    for (std::int64_t p = count; p < kTilePixels; ++p) tile[ch * kTilePixels + p] = 0.0F;
  }
}

/// x[p * c + ch] = tile[ch * kTilePixels + p] for p < count, rounded to T.
/// Shapes:   as load_tile
template <class T>
inline void store_tile(const float* tile, std::int64_t c, std::int64_t count, T* x) {
  const std::int64_t whole = c >= 8 ? count / 8 * 8 : 0;
  for (std::int64_t p = 0; p < whole; p += 8) {
    for (std::int64_t at = 0; at < c; at += 8) {
      const std::int64_t ch = std::min(at, c - 8);
      tile_detail::Float8 r[8];
      for (int i = 0; i < 8; ++i) tile_detail::load8(tile + (ch + i) * kTilePixels + p, r[i]);
      tile_detail::transpose8(r);
      for (int i = 0; i < 8; ++i) tile_detail::store8(x + (p + i) * c + ch, r[i]);
    }
  }
  for (std::int64_t p = whole; p < count; ++p) {
    for (std::int64_t ch = 0; ch < c; ++ch) x[p * c + ch] = static_cast<T>(tile[ch * kTilePixels + p]);
  }
}

/// largest[p] = max over the channels of tile[.][p].
/// Shapes:   tile [c][kTilePixels], largest [kTilePixels]
inline void tile_max(const float* tile, std::int64_t c, float* largest) {
  float m[kTilePixels];
  for (std::int64_t p = 0; p < kTilePixels; ++p) m[p] = tile[p];
  for (std::int64_t ch = 1; ch < c; ++ch) {
    const float* row = tile + ch * kTilePixels;
#pragma omp simd
    for (std::int64_t p = 0; p < kTilePixels; ++p) m[p] = row[p] > m[p] ? row[p] : m[p];
  }
  for (std::int64_t p = 0; p < kTilePixels; ++p) largest[p] = m[p];
}

/// How a kernel cuts a map into tiles and groups the tiles into the blocks of a repeatable reduction.
struct TilePlan {
  std::int64_t pixels = 0;
  std::int64_t tiles = 0;
  std::int64_t blocks = 0;

  explicit TilePlan(std::int64_t pixel_count)
      : pixels(pixel_count),
        tiles((pixel_count + kTilePixels - 1) / kTilePixels),
        blocks(std::clamp<std::int64_t>(tiles / 8, 1, 64)) {}
  /// Calls `body(first pixel, count)` for the tiles of one block.
  template <class Body>
  void for_block(std::int64_t block, const Body& body) const {
    const std::int64_t end = tiles * (block + 1) / blocks;
    for (std::int64_t t = tiles * block / blocks; t < end; ++t) {
      body(t * kTilePixels, std::min(kTilePixels, pixels - t * kTilePixels));
    }
  }
};

}  // namespace limbeck::ops
