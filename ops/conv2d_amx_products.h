// What this is: products on the matrix units and what becomes of their sums: bias, residual, activation, rounding. Part of the kernels
//   that include it, see ops/conv2d_amx.cpp for tiles, chunks and parts; empty for processors without matrix units.
#pragma once

#include "ops/conv2d_amx_pixels.h"

#if defined(LIMBECK_AMX)
#include "ops/conv2d_engine.h"
#include "ops/simd.h"

namespace limbeck::ops::amx {

/// Where the weights of panel p begin.
/// Shapes:   none
template <class T>
[[nodiscard]] std::int64_t panel_offset(const WeightShape& w, std::int64_t p) {
  return p * w.chunks() * kParts<T> * 2 * kTileBytes;
}

/// The sums in tiles 0 to 3 += the pixels in 4 and 5 x the weights in 6 and 7.
template <int RowTiles, int ColumnTiles>
[[gnu::always_inline]] inline void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (ColumnTiles > 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (RowTiles > 1) _tile_dpbf16ps(2, 5, 6);
  if constexpr (RowTiles > 1 && ColumnTiles > 1) _tile_dpbf16ps(3, 5, 7);
}

/// sums[row tile][column tile][16][16] = pixels x weights, or += where `resume`. PanelTiles are stored side by side in the panel.
template <class T, int RowTiles, int ColumnTiles, bool InPlace = false, int PanelTiles = ColumnTiles>
[[gnu::noinline]] void multiply(const ReadyPair& ready, const char* weights, float* sums, bool resume) {
  begin_sums<RowTiles, ColumnTiles>(sums, resume);
  constexpr std::int64_t kPixelPart = 2 * kTileBytes;
  constexpr std::int64_t kWeightPart = PanelTiles * kTileBytes;
  constexpr std::int64_t kStep = InPlace ? 64 : kParts<T> * kPixelPart;
  const std::int64_t row = InPlace ? ready.row_bytes : 64;
  const std::int64_t second = kTileSide * row;
  const char* a = ready.pixels;
  for (std::size_t s = 0; s < ready.stretch_count; ++s) {
    const char* b = weights + ready.stretches[s].first * kParts<T> * kWeightPart;
    const char* const end = b + ready.stretches[s].count * kParts<T> * kWeightPart;
    for (; b != end; a += kStep, b += kParts<T> * kWeightPart) {
      _tile_loadd(6, b, 64);
      if constexpr (ColumnTiles > 1) _tile_loadd(7, b + kTileBytes, 64);
      if constexpr (kParts<T> == 2) {  // the smallest products first
        _tile_loadd(4, a + kPixelPart, 64);
        if constexpr (RowTiles > 1) _tile_loadd(5, a + kPixelPart + kTileBytes, 64);
        add_products<RowTiles, ColumnTiles>();
      }
      _tile_loadd(4, a, row);
      if constexpr (RowTiles > 1) _tile_loadd(5, a + second, row);
      add_products<RowTiles, ColumnTiles>();
      if constexpr (kParts<T> == 2) {
        _tile_loadd(6, b + kWeightPart, 64);
        if constexpr (ColumnTiles > 1) _tile_loadd(7, b + kWeightPart + kTileBytes, 64);
        add_products<RowTiles, ColumnTiles>();
      }
    }
  }
  end_sums<RowTiles, ColumnTiles>(sums);
}

template <class T>
void multiply_pair(const ReadyPair& ready, std::int64_t rows, const char* weights, std::int64_t width, float* sums,
                   bool resume) {
  if (ready.row_bytes != 0) {
    width == 2 ? multiply<T, 2, 2, true>(ready, weights, sums, resume)
               : multiply<T, 2, 1, true>(ready, weights, sums, resume);
  } else if (rows > kSide) {
    width == 2 ? multiply<T, 2, 2>(ready, weights, sums, resume) : multiply<T, 2, 1>(ready, weights, sums, resume);
  } else {
    width == 2 ? multiply<T, 1, 2>(ready, weights, sums, resume) : multiply<T, 1, 1>(ready, weights, sums, resume);
  }
}

/// The same for 16 results of a panel of two tiles: half 0 or 1.
template <class T>
void multiply_half(const ReadyPair& ready, std::int64_t rows, const char* weights, std::int64_t half, float* sums) {
  const char* const tile = weights + half * kTileBytes;
  if (ready.row_bytes != 0) {
    multiply<T, 2, 1, true, 2>(ready, tile, sums, false);
  } else if (rows > kSide) {
    multiply<T, 2, 1, false, 2>(ready, tile, sums, false);
  } else {
    multiply<T, 1, 1, false, 2>(ready, tile, sums, false);
  }
}

[[gnu::always_inline]] inline __m512 get(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
[[gnu::always_inline]] inline __m512 get(const bfloat16* p, __mmask16 mask) {
  return as_float(_mm256_maskz_loadu_epi16(mask, p));
}
[[gnu::always_inline]] inline void put(float* p, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(p, mask, v); }
[[gnu::always_inline]] inline void put(bfloat16* p, __mmask16 mask, __m512 v) {
  _mm256_mask_storeu_epi16(p, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

/// y = act(sums + bias + residual) for `rows` pixels of a pair and the results of panel p.
template <class Y, bool Residual, bool TwoTiles>
void finish_panel(const float* sums, const std::int32_t* order, std::int64_t first_pixel, std::int64_t rows,
                  std::int64_t p, const ConvEpilogue& e, const TensorView& y) {
  const std::int64_t filters = y.c();
  const std::int64_t column = p * kColumns;
  constexpr std::int64_t kTiles = TwoTiles ? 2 : 1;
  std::array<__mmask16, kTiles> mask;
  __m512 bias[kTiles];
  for (std::int64_t j = 0; j < kTiles; ++j) {
    const auto at = static_cast<std::size_t>(j);
    mask[at] = simd::first_lanes(filters - column - j * kSide);
    bias[j] = e.bias.defined() ? get(e.bias.ptr<float>() + column + j * kSide, mask[at]) : __m512{};
  }
  const Activation act = e.act;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t pixel = order == nullptr ? first_pixel + i : order[i];
    const float* const row = sums + i / kSide * 512 + i % kSide * kSide;
    for (std::int64_t j = 0; j < kTiles; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const std::int64_t place = pixel * filters + column + j * kSide;
      __m512 v = _mm512_load_ps(row + j * 256) + bias[j];
      if constexpr (Residual) v += get(e.residual.ptr<Y>() + place, mask[at]);
      put(y.ptr<Y>() + place, mask[at], simd::activate(act, v));
    }
  }
}

template <class Y>
void finish(const float* sums, const std::int32_t* order, std::int64_t first_pixel, std::int64_t rows, std::int64_t p,
            const ConvEpilogue& e, const TensorView& y) {
  const bool two = y.c() - p * kColumns > kSide;
  const auto run = e.residual.defined() ? (two ? finish_panel<Y, true, true> : finish_panel<Y, true, false>)
                                        : (two ? finish_panel<Y, false, true> : finish_panel<Y, false, false>);
  run(sums, order, first_pixel, rows, p, e, y);
}

}  // namespace limbeck::ops::amx

#endif
