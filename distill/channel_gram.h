// What this is: the two products of losses over channel-by-channel matrices: K = X X^T of one image (X: one row per
//   channel, one column per position) and D X, for channels-last maps.
// What it is not: a general matrix product (ops/matmul.h). Sums over positions end in double here, and their order does not
//   depend on the number of threads; the losses take differences of such matrices.
// Read next: distill/inter_channel_kd_cpu.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/pixel_tile.h"
#include "ops/simd.h"

namespace limbeck::distill {

inline constexpr std::int64_t kGramRun = 256;  ///< positions that are added in f32

/// Rows that the products below take together.
/// Shapes:   none
[[nodiscard]] constexpr std::int64_t round_up_rows(std::int64_t c) noexcept { return (c + 3) / 4 * 4; }

/// The sum of the lanes, halves onto halves: a chain of single additions would take longer than the products before it.
/// Shapes:   none
[[nodiscard]] inline float sum_of_lanes(ops::simd::Vec v) noexcept {
  float lanes[ops::simd::kLanes];
  ops::simd::store(lanes, v);
  for (std::int64_t width = ops::simd::kLanes / 2; width > 0; width /= 2) {
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

/// store(i, j, sum_m a[i][m] b[j][m]) for all pairs of rows, in tiles of 4 x 4 sums that stay in registers. `lower`: only the
/// tiles that touch the lower triangle.
/// Shapes:   a, b [round_up_rows(c)][Run]
template <std::int64_t Run, class Store>
void multiply_runs(const float* a, const float* b, std::int64_t c, bool lower, const Store& store) {
  namespace simd = ops::simd;
  for (std::int64_t i = 0; i < c; i += 4) {
    for (std::int64_t j = 0; j < (lower ? i + 4 : c); j += 4) {
      simd::Vec sums[4][4] = {};
      for (std::int64_t m = 0; m < Run; m += simd::kLanes) {
        simd::Vec left[4];
        simd::Vec right[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          left[r] = simd::load(a + (i + r) * Run + m);
          right[r] = simd::load(b + (j + r) * Run + m);
        }
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 4
          for (int q = 0; q < 4; ++q) sums[r][q] += left[r] * right[q];
        }
      }
      for (std::int64_t r = 0; r < std::min<std::int64_t>(4, c - i); ++r) {
        for (std::int64_t q = 0; q < std::min<std::int64_t>(4, c - j); ++q) {
          store(i + r, j + q, static_cast<double>(sum_of_lanes(sums[r][q])));
        }
      }
    }
  }
}

/// k = X X^T of one image, both triangles.
/// Shapes:   x `pixels` pixels of c channels; k [c][c]
template <class T>
void channel_gram(const T* x, std::int64_t pixels, std::int64_t c, double* k) {
  const std::int64_t runs = (pixels + kGramRun - 1) / kGramRun;
  const std::int64_t blocks = std::clamp<std::int64_t>(runs / 2, 1, 16);
  const Workspace partial(static_cast<std::size_t>(blocks * c * c) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = round_up_rows(c);
    const Workspace scratch(static_cast<std::size_t>(rows * kGramRun + c * ops::kTilePixels) * sizeof(float));
    float* run = scratch.as<float>();
    float* tile = run + rows * kGramRun;
    std::fill_n(run + c * kGramRun, (rows - c) * kGramRun, 0.0F);
    for (std::int64_t b = begin; b < end; ++b) {
      double* sums = partial.as<double>() + b * c * c;
      std::fill_n(sums, c * c, 0.0);
      for (std::int64_t r = runs * b / blocks; r < runs * (b + 1) / blocks; ++r) {
        for (std::int64_t at = 0; at < kGramRun; at += ops::kTilePixels) {
          const std::int64_t first = r * kGramRun + at;
          const std::int64_t count = std::clamp<std::int64_t>(pixels - first, 0, ops::kTilePixels);
          ops::load_tile(x + first * c, c, count, tile);
          for (std::int64_t ch = 0; ch < c; ++ch) {
            std::memcpy(run + ch * kGramRun + at, tile + ch * ops::kTilePixels, ops::kTilePixels * sizeof(float));
          }
        }
        multiply_runs<kGramRun>(run, run, c, true,
                                [&](std::int64_t i, std::int64_t j, double sum) { sums[i * c + j] += sum; });
      }
    }
  });
  for (std::int64_t i = 0; i < c; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::int64_t b = 0; b < blocks; ++b) sum += partial.as<double>()[b * c * c + i * c + j];
      k[i * c + j] = sum;
      k[j * c + i] = sum;
    }
  }
}

/// out[i][p] = sum_j d[i][j] x[j][p] for one tile: four rows at a time, whose sums stay in registers.
/// Shapes:   d [c][c]; x, out [c][kTilePixels]
inline void mix_tile(const float* d, const float* x, std::int64_t c, float* out) {
  namespace simd = ops::simd;
  constexpr std::int64_t kP = ops::kTilePixels;
  constexpr int kVectors = static_cast<int>(kP / simd::kLanes);
  for (std::int64_t i = 0; i < c; i += 4) {
    const std::int64_t rows = std::min<std::int64_t>(4, c - i);
    // Rows beyond the last repeat it; their sums are not stored.
    const float* weights[4];
    for (std::int64_t r = 0; r < 4; ++r) weights[r] = d + (i + std::min(r, rows - 1)) * c;
    simd::Vec sum[4][kVectors] = {};
    for (std::int64_t j = 0; j < c; ++j) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const simd::Vec column = simd::load(x + j * kP + v * simd::kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) sum[r][v] += simd::broadcast(weights[r][j]) * column;
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int v = 0; v < kVectors; ++v) simd::store(out + (i + r) * kP + v * simd::kLanes, sum[r][v]);
    }
  }
}

/// g = D X for one image.
/// Shapes:   d [c][c]; x, g `pixels` pixels of c channels
template <class X, class G>
void channel_mix(const float* d, const X* x, std::int64_t pixels, std::int64_t c, G* g) {
  const std::int64_t tiles = (pixels + ops::kTilePixels - 1) / ops::kTilePixels;
  parallel_for(tiles, 1 + 16384 / (c * c), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * c * ops::kTilePixels) * sizeof(float));
    float* in = scratch.as<float>();
    float* out = in + c * ops::kTilePixels;
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = t * ops::kTilePixels;
      const std::int64_t count = std::min(ops::kTilePixels, pixels - first);
      ops::load_tile(x + first * c, c, count, in);
      mix_tile(d, in, c, out);
      ops::store_tile(out, c, count, g + first * c);
    }
  });
}

}  // namespace limbeck::distill
