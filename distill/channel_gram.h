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

/// k += X X^T over the first `count` <= kGramRun columns of run; only the lower triangle. The columns beyond are 0.
/// Shapes:   run [c][kGramRun], k [c][c]
inline void add_gram_run(const float* run, std::int64_t c, double* k) {
  for (std::int64_t i = 0; i < c; ++i) {
    const float* a = run + i * kGramRun;
    std::int64_t j = 0;
    for (; j + 3 <= i; j += 4) {  // four independent sums hide the latency of an addition
      const float* b = run + j * kGramRun;
      float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (std::int64_t p = 0; p < kGramRun; ++p) {
        s0 += a[p] * b[p];
        s1 += a[p] * b[p + kGramRun];
        s2 += a[p] * b[p + 2 * kGramRun];
        s3 += a[p] * b[p + 3 * kGramRun];
      }
      k[i * c + j] += static_cast<double>(s0);
      k[i * c + j + 1] += static_cast<double>(s1);
      k[i * c + j + 2] += static_cast<double>(s2);
      k[i * c + j + 3] += static_cast<double>(s3);
    }
    for (; j <= i; ++j) {
      const float* b = run + j * kGramRun;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t p = 0; p < kGramRun; ++p) sum += a[p] * b[p];
      k[i * c + j] += static_cast<double>(sum);
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
    const Workspace scratch(static_cast<std::size_t>(c * (kGramRun + ops::kTilePixels)) * sizeof(float));
    float* run = scratch.as<float>();
    float* tile = run + c * kGramRun;
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
        add_gram_run(run, c, sums);
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
