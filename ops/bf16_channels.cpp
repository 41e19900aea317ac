// What this is: see ops/bf16_channels.h.
//
// Note [gram tiles]
//   A tile product adds A B to 16 x 16 sums: A has 16 rows (channels i) of 32 pixels, B 16 rows of pairs of pixels (2k, 2k + 1) for 16
//   channels j. Two pixels of a channel are 32 bits, so as 32-bit numbers B[k][i] = A[i][k]: B is what two pixels of a channels-last
//   map make when their channels are interleaved, and A is B turned. Both are made once per 32 pixels and 16 channels.
// Note [mix tiles]
//   For D X, pixels are the rows of A as they lie in memory: 32 channels of 16 pixels are a tile whose rows are c numbers apart. A
//   row runs into the next pixel, whose channels meet zeros of D.
#include "ops/bf16_channels.h"

#include <algorithm>
#include <cstring>

#include "core/memory.h"
#include "ops/matrix_units.h"
#include "ops/simd.h"

#if defined(LIMBECK_AMX)

namespace limbeck::ops {
namespace {

constexpr std::int64_t kPixels = 32;  // of a tile
using Row = std::uint32_t __attribute__((vector_size(64)));

/// Channels of a pixel, `used` has a bit per channel; the others are 0.
[[gnu::always_inline]] inline Row load_row(const bfloat16* x, __mmask16 used) {
  return reinterpret_cast<Row>(_mm512_maskz_cvtepu16_epi32(0xFFFF, _mm256_maskz_loadu_epi16(used, x)));
}

/// Turns a matrix of 16 x 16: interleaving row i with row i + 8 four times.
[[gnu::always_inline]] inline void turn(Row (&r)[16]) {
  for (int step = 0; step < 4; ++step) {
    Row t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      t[2 * i + 1] =
          __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = t[i];
  }
}

/// A and B of 16 channels and up to 32 pixels.
void make_tiles(const bfloat16* x, std::int64_t count, std::int64_t c, __mmask16 used, char* a, char* b) {
  Row rows[16];
  for (std::int64_t k = 0; k < 16; ++k) {
    const Row first = 2 * k < count ? load_row(x + 2 * k * c, used) : Row{};
    const Row second = 2 * k + 1 < count ? load_row(x + (2 * k + 1) * c, used) : Row{};
    rows[k] = first | (second << 16U);
    _mm512_store_si512(b + k * 64, reinterpret_cast<__m512i>(rows[k]));
  }
  turn(rows);
  for (std::int64_t i = 0; i < 16; ++i) _mm512_store_si512(a + i * 64, reinterpret_cast<__m512i>(rows[i]));
}

/// Two 16 x 16 sums over `steps` tiles: the rows of one panel with the columns of one or two.
template <bool Two>
void multiply(const char* a, const char* b, const char* b2, std::int64_t steps, float* sums, float* sums2,
              std::int64_t stride) {
  asm volatile("" ::: "memory");  // tile loads are not known to the compiler as reads of memory
  _tile_zero(0);
  _tile_zero(1);
  for (std::int64_t k = 0; k < steps; ++k) {
    _tile_loadd(2, a + k * 2 * kTileBytes, 64);
    _tile_loadd(3, b + k * 2 * kTileBytes, 64);
    _tile_dpbf16ps(0, 2, 3);
    if constexpr (Two) {
      _tile_loadd(4, b2 + k * 2 * kTileBytes, 64);
      _tile_dpbf16ps(1, 2, 4);
    }
  }
  _tile_stored(0, sums, stride);
  if constexpr (Two) _tile_stored(1, sums2, stride);
}

std::int64_t panels_of(std::int64_t c) { return (c + kTileSide - 1) / kTileSide; }

}  // namespace

bool bf16_channels_fit() noexcept { return tiles_granted(); }

std::size_t bf16_gram_bytes(std::int64_t c) noexcept {
  return static_cast<std::size_t>(panels_of(c) * (kBf16GramRun / kPixels) * 2 * kTileBytes);
}

void bf16_gram(const bfloat16* x, std::int64_t count, std::int64_t c, void* scratch, float* sums) {
  const TileShapes shapes;
  const std::int64_t panels = panels_of(c);
  const std::int64_t steps = (count + kPixels - 1) / kPixels;
  constexpr std::int64_t kPanelBytes = kBf16GramRun / kPixels * 2 * kTileBytes;
  char* tiles = static_cast<char*>(scratch);  // [panel][step][A, B]
  for (std::int64_t k = 0; k < steps; ++k) {
    // The next run: the processor's own prefetch does not get that far while this one is multiplied.
    const bfloat16* next = x + (kBf16GramRun + k * kPixels) * c;
    for (std::int64_t i = 0; i < kPixels * c; i += 32) __builtin_prefetch(next + i);
    for (std::int64_t p = 0; p < panels; ++p) {
      const __mmask16 used = simd::first_lanes(c - p * kTileSide);
      char* a = tiles + p * kPanelBytes + k * 2 * kTileBytes;
      make_tiles(x + k * kPixels * c + p * kTileSide, std::min(kPixels, count - k * kPixels), c, used, a,
                 a + kTileBytes);
    }
  }
  const std::int64_t side = panels * kTileSide;
  for (std::int64_t i = 0; i < panels; ++i) {
    const char* a = tiles + i * kPanelBytes;
    float* row = sums + i * kTileSide * side;
    std::int64_t j = 0;
    for (; j + 1 <= i; j += 2) {
      const char* b = tiles + j * kPanelBytes + kTileBytes;
      multiply<true>(a, b, b + kPanelBytes, steps, row + j * kTileSide, row + (j + 1) * kTileSide, side * 4);
    }
    if (j == i) multiply<false>(a, a + kTileBytes, nullptr, steps, row + j * kTileSide, nullptr, side * 4);
  }
}

namespace {

constexpr std::int64_t kChannels = 32;  // of a step of D X
std::int64_t steps_of(std::int64_t c) { return (c + kChannels - 1) / kChannels; }

/// Sums [2][2][16][16] of 32 pixels and 16 or 32 rows of D; `stride` bytes from pixel to pixel.
template <bool Two>
void multiply_pixels(const bfloat16* x, std::int64_t stride, std::int64_t steps, const char* d,
                     std::int64_t panel_bytes, float* sums) {
  asm volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t k = 0; k < steps; ++k) {
    const auto* from = reinterpret_cast<const char*>(x + k * kChannels);
    _tile_loadd(4, from, stride);
    _tile_loadd(5, from + kTileSide * stride, stride);
    for (int part = 0; part < 2; ++part) {  // the smaller one first
      const char* b = d + (2 * k + part) * kTileBytes;
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (Two) {
        _tile_loadd(7, b + panel_bytes, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  if constexpr (Two) {
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
  }
  asm volatile("" ::: "memory");
}

}  // namespace

std::size_t bf16_mix_bytes(std::int64_t c) noexcept {
  return static_cast<std::size_t>(panels_of(c) * steps_of(c) * 2 * kTileBytes);
}

/// [panel of 16 rows of D][32 columns][low part, high part][pair of columns][row][2]
void bf16_mix_pack(const float* d, std::int64_t c, void* packed) {
  auto* const out = static_cast<bfloat16*>(packed);
  const std::int64_t steps = steps_of(c);
  for (std::int64_t i = 0; i < panels_of(c) * kTileSide; ++i) {
    for (std::int64_t j = 0; j < steps * kChannels; ++j) {
      const float value = i < c && j < c ? d[i * c + j] : 0.0F;
      const bfloat16 high(value);
      const std::int64_t tile = (i / kTileSide * steps + j / kChannels) * 2;
      const std::int64_t at = (j % kChannels / 2 * kTileSide + i % kTileSide) * 2 + j % 2;
      out[tile * (kTileBytes / 2) + at] = bfloat16(value - static_cast<float>(high));
      out[(tile + 1) * (kTileBytes / 2) + at] = high;
    }
  }
}

void bf16_mix(const bfloat16* x, std::int64_t count, std::int64_t readable, std::int64_t c, const void* packed,
              bfloat16* y) {
  const TileShapes shapes;
  const std::int64_t steps = steps_of(c);
  const std::int64_t row = steps * kChannels;  // numbers that a row of tiles reads
  const std::int64_t panel_bytes = steps * 2 * kTileBytes;
  alignas(64) float sums[4 * kTileBytes / sizeof(float)];
  const Workspace last(static_cast<std::size_t>(kPixels * row) * sizeof(bfloat16));
  for (std::int64_t p = 0; p < count; p += kPixels) {
    const std::int64_t pixels = std::min(kPixels, count - p);
    const bfloat16* from = x + p * c;
    std::int64_t stride = c;
    if (pixels < kPixels ||
        (p + kPixels - 1) * c + row > readable) {  // at the end of the map: a copy, with zeros behind it
      auto* const copy = last.as<bfloat16>();
      std::memset(static_cast<void*>(copy), 0, static_cast<std::size_t>(kPixels * row) * sizeof(bfloat16));
      for (std::int64_t m = 0; m < pixels; ++m) std::copy_n(from + m * c, c, copy + m * row);
      from = copy;
      stride = row;
    }
    for (std::int64_t n = 0; n * kTileSide < c; n += 2) {
      const char* d = static_cast<const char*>(packed) + n * panel_bytes;
      const bool two = (n + 1) * kTileSide < c;
      two ? multiply_pixels<true>(from, stride * 2, steps, d, panel_bytes, sums)
          : multiply_pixels<false>(from, stride * 2, steps, d, panel_bytes, sums);
      for (std::int64_t v = 0; v < (two ? 2 : 1); ++v) {
        const __mmask16 used = simd::first_lanes(c - (n + v) * kTileSide);
        bfloat16* to = y + p * c + (n + v) * kTileSide;
        for (std::int64_t m = 0; m < pixels; ++m) {
          const __m512 values = _mm512_load_ps(sums + v * 512 + m * kTileSide);
          _mm256_mask_storeu_epi16(to + m * c, used, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
        }
      }
    }
  }
}

}  // namespace limbeck::ops

#else

namespace limbeck::ops {

bool bf16_channels_fit() noexcept { return false; }
std::size_t bf16_gram_bytes(std::int64_t) noexcept { return 0; }
void bf16_gram(const bfloat16*, std::int64_t, std::int64_t, void*, float*) {}
std::size_t bf16_mix_bytes(std::int64_t) noexcept { return 0; }
void bf16_mix_pack(const float*, std::int64_t, void*) {}
void bf16_mix(const bfloat16*, std::int64_t, std::int64_t, std::int64_t, const void*, bfloat16*) {}

}  // namespace limbeck::ops

#endif
