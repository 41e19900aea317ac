// What this is: the two products of losses over channel-by-channel matrices: K = X X^T of one image (X: one row per
//   channel, one column per position) and D X, for channels-last maps. bf16 maps take the matrix units where there are some
//   (ops/bf16_channels.h): products of bf16 numbers are exact, and sums are f32 either way.
// What it is not: a general matrix product (ops/matmul.h). Sums over positions end in double here, and their order does not
//   depend on the number of threads; the losses take differences of such matrices.
// Read next: distill/inter_channel_kd_cpu.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/bf16_channels.h"
#include "ops/pixel_tile.h"
#include "ops/simd.h"

namespace limbeck::distill {

inline constexpr std::int64_t kGramRun = ops::kBf16GramRun;  ///< positions that are added in f32

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

// Note [panels]
//   A product of channels with channels needs no transposed map: where the channels of a pixel lie side by side, the pixel
//   adds (one of its channels) times (a vector of its channels) to a row of K. Channels-last maps of 19 channels, however,
//   have no vectors at even addresses. So a run is first copied, as f32, into panels: panel v holds lanes v L .. v L + L - 1
//   of all its pixels. Lanes behind the last channel hold whatever is there; their sums are never stored.

/// Channels that one panel holds.
inline constexpr std::int64_t kPanelLanes = ops::simd::kLanes;

/// Shapes:   none
[[nodiscard]] constexpr std::int64_t panels_of(std::int64_t c) noexcept { return (c + kPanelLanes - 1) / kPanelLanes; }

/// Copies `count` pixels into panels; `readable` elements from x on belong to the map.
/// Shapes:   x `count` pixels of c channels; panels [panels_of(c)][kGramRun][kPanelLanes]
template <class T>
void load_panels(const T* x, std::int64_t c, std::int64_t count, std::int64_t readable, float* panels) {
  namespace simd = ops::simd;
  for (std::int64_t v = 0; v < panels_of(c); ++v) {
    const T* from = x + v * kPanelLanes;
    float* to = panels + v * kGramRun * kPanelLanes;
    const std::int64_t behind = readable - v * kPanelLanes - kPanelLanes;  // the last place where a whole vector begins
    const std::int64_t whole = behind < 0 ? 0 : std::min(count, behind / c + 1);
    for (std::int64_t m = 0; m < whole; ++m) simd::store(to + m * kPanelLanes, simd::load(from + m * c));
    for (std::int64_t m = whole; m < count; ++m) {
      simd::store(to + m * kPanelLanes, simd::load_some(from + m * c, std::min(kPanelLanes, c - v * kPanelLanes)));
    }
  }
}

/// sums[i][j] += sum_m a[m][i] b[m][j] for Rows channels i of one panel, from `first` on, and all lanes j of Vectors panels.
/// Only j <= i is added, and i < c.
/// Shapes:   panels as load_panels() makes them; sums [c][c]
template <int Rows, int Vectors>
void multiply_panels(const float* panels, std::int64_t count, std::int64_t c, std::int64_t first, std::int64_t panel,
                     double* sums) {
  namespace simd = ops::simd;
  const float* left[Rows];
  for (std::int64_t r = 0; r < Rows; ++r) {  // rows behind the last channel repeat it
    const std::int64_t i = std::min(first + r, c - 1);
    left[r] = panels + i / kPanelLanes * kGramRun * kPanelLanes + i % kPanelLanes;
  }
  const float* right = panels + panel * kGramRun * kPanelLanes;
  simd::Vec sum[Rows][Vectors] = {};
  for (std::int64_t m = 0; m < count; ++m) {
    simd::Vec column[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) column[v] = simd::load(right + (v * kGramRun + m) * kPanelLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const float row = left[r][m * kPanelLanes];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += row * column[v];
    }
  }
  for (std::int64_t r = 0; r < std::min<std::int64_t>(Rows, c - first); ++r) {
    for (std::int64_t v = 0; v < Vectors; ++v) {
      float lanes[kPanelLanes];
      simd::store(lanes, sum[r][v]);
      const std::int64_t j = (panel + v) * kPanelLanes;
      double* row = sums + (first + r) * c + j;
      for (std::int64_t q = 0; q < std::min(kPanelLanes, first + r + 1 - j); ++q)
        row[q] += static_cast<double>(lanes[q]);
    }
  }
}

/// The rows `first` .. `first + Rows` of the lower triangle.
/// Shapes:   as multiply_panels
template <int Rows>
void multiply_rows(const float* panels, std::int64_t count, std::int64_t c, std::int64_t first, double* sums) {
  const std::int64_t diagonal = first / kPanelLanes;
  std::int64_t panel = 0;
  for (; panel < diagonal; panel += 2) multiply_panels<Rows, 2>(panels, count, c, first, panel, sums);
  if (panel == diagonal) multiply_panels<Rows, 1>(panels, count, c, first, panel, sums);
}

/// Adds the lower triangle of X X^T of one run of pixels to sums. One object per thread.
/// Shapes:   x `count` <= kGramRun pixels of c channels, `readable` elements from x on; sums [c][c]
template <class T>
class GramRun {
 public:
  explicit GramRun(std::int64_t c)
      : c_(c),
        on_matrix_units_(std::is_same_v<T, bfloat16> && ops::bf16_channels_fit()),
        scratch_(on_matrix_units_ ? ops::bf16_gram_bytes(c) + static_cast<std::size_t>(side() * side()) * sizeof(float)
                                  : static_cast<std::size_t>(panels_of(c) * kGramRun * kPanelLanes) * sizeof(float)) {}
  void add(const T* x, std::int64_t count, std::int64_t readable, double* sums) const {
    if constexpr (std::is_same_v<T, bfloat16>) {
      if (on_matrix_units_) {
        add_tiles(x, count, sums);
        return;
      }
    }
    constexpr std::int64_t kRows = std::min<std::int64_t>(8, kPanelLanes);
    auto* const panels = scratch_.template as<float>();
    load_panels(x, c_, count, readable, panels);
    for (std::int64_t i = 0; i < c_; i += kRows) {
      c_ - i <= 4 ? multiply_rows<4>(panels, count, c_, i, sums) : multiply_rows<kRows>(panels, count, c_, i, sums);
    }
  }

 private:
  [[nodiscard]] std::int64_t side() const { return (c_ + 15) / 16 * 16; }
  void add_tiles(const T* x, std::int64_t count, double* sums) const {
    auto* const tiles = scratch_.template as<char>();
    auto* const products = reinterpret_cast<float*>(tiles + ops::bf16_gram_bytes(c_));
    ops::bf16_gram(x, count, c_, tiles, products);
    for (std::int64_t i = 0; i < c_; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) sums[i * c_ + j] += static_cast<double>(products[i * side() + j]);
    }
  }

  std::int64_t c_;
  bool on_matrix_units_;
  Workspace scratch_;
};

/// k = X X^T of one image, both triangles.
/// Shapes:   x `pixels` pixels of c channels; k [c][c]
template <class T>
void channel_gram(const T* x, std::int64_t pixels, std::int64_t c, double* k) {
  const std::int64_t runs = (pixels + kGramRun - 1) / kGramRun;
  const std::int64_t blocks = std::clamp<std::int64_t>(runs / 2, 1, 16);
  const Workspace partial(static_cast<std::size_t>(blocks * c * c) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const GramRun<T> run(c);
    for (std::int64_t b = begin; b < end; ++b) {
      double* sums = partial.as<double>() + b * c * c;
      std::fill_n(sums, c * c, 0.0);
      for (std::int64_t r = runs * b / blocks; r < runs * (b + 1) / blocks; ++r) {
        const std::int64_t first = r * kGramRun;
        run.add(x + first * c, std::min(kGramRun, pixels - first), (pixels - first) * c, sums);
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

/// out[p] = D x[p] for four pixels, of Vectors panels of rows of D.
/// Shapes:   columns [Vectors][c][kPanelLanes]: D turned, rows behind the last are 0; x four pixels of c channels; out rows
///           `stride` apart
template <int Vectors>
void mix_pixels(const float* columns, const float* const (&x)[4], std::int64_t c, float* out, std::int64_t stride) {
  namespace simd = ops::simd;
  simd::Vec sum[4][Vectors] = {};
  for (std::int64_t j = 0; j < c; ++j) {
    simd::Vec column[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) column[v] = simd::load(columns + (v * c + j) * kPanelLanes);
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const float value = x[p][j];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[p][v] += value * column[v];
    }
  }
  for (int p = 0; p < 4; ++p) {
    for (int v = 0; v < Vectors; ++v) simd::store(out + p * stride + v * kPanelLanes, sum[p][v]);
  }
}

/// D in the form that mix_pixels() reads.
/// Shapes:   d [c][c]; columns [panels_of(c)][c][kPanelLanes]
inline void turn_matrix(const float* d, std::int64_t c, float* columns) {
  for (std::int64_t i = 0; i < panels_of(c) * kPanelLanes; ++i) {
    for (std::int64_t j = 0; j < c; ++j) {
      columns[(i / kPanelLanes * c + j) * kPanelLanes + i % kPanelLanes] = i < c ? d[i * c + j] : 0.0F;
    }
  }
}

/// Converts `count` elements to f32.
/// Shapes:   x, y [count]
template <class X>
void widen_run(const X* x, std::int64_t count, float* y) {
  namespace simd = ops::simd;
  std::int64_t i = 0;
  for (; i + simd::kLanes <= count; i += simd::kLanes) simd::store(y + i, simd::load(x + i));
  if (i < count) simd::store_some(y + i, simd::load_some(x + i, count - i), count - i);
}

/// D X on the matrix units.
/// Shapes:   as channel_mix
inline void mix_tiles(const float* d, const bfloat16* x, std::int64_t pixels, std::int64_t c, bfloat16* g) {
  constexpr std::int64_t kTile = 32;
  const Workspace packed(ops::bf16_mix_bytes(c));
  ops::bf16_mix_pack(d, c, packed.as<void>());
  parallel_for((pixels + kTile - 1) / kTile, 1 + 16384 / (c * c), [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kTile;
    const std::int64_t count = std::min(end * kTile, pixels) - first;
    ops::bf16_mix(x + first * c, count, (pixels - first) * c, c, packed.as<void>(), g + first * c);
  });
}

/// g = D X for one image.
/// Shapes:   d [c][c]; x, g `pixels` pixels of c channels
template <class X, class G>
void channel_mix(const float* d, const X* x, std::int64_t pixels, std::int64_t c, G* g) {
  namespace simd = ops::simd;
  if constexpr (std::is_same_v<X, bfloat16> && std::is_same_v<G, bfloat16>) {
    if (ops::bf16_channels_fit()) {
      mix_tiles(d, x, pixels, c, g);
      return;
    }
  }
  constexpr std::int64_t kTile = 32;
  const std::int64_t panels = panels_of(c);
  const std::int64_t stride = panels * kPanelLanes;
  const Workspace turned(static_cast<std::size_t>(stride * c) * sizeof(float));
  float* columns = turned.as<float>();
  turn_matrix(d, c, columns);
  parallel_for((pixels + kTile - 1) / kTile, 1 + 16384 / (c * c), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(kTile * (c + stride)) * sizeof(float));
    float* in = scratch.as<float>();
    float* out = in + kTile * c;
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = t * kTile;
      const std::int64_t count = std::min(kTile, pixels - first);
      const float* from = in;
      if constexpr (std::is_same_v<X, float>) {
        from = x + first * c;
      } else {
        widen_run(x + first * c, count * c, in);
      }
      for (std::int64_t p = 0; p < count; p += 4) {
        const float* four[4];
        for (std::int64_t q = 0; q < 4; ++q) four[q] = from + std::min(p + q, count - 1) * c;
        std::int64_t v = 0;
        for (; v + 2 <= panels; v += 2) {
          mix_pixels<2>(columns + v * c * kPanelLanes, four, c, out + p * stride + v * kPanelLanes, stride);
        }
        if (v < panels)
          mix_pixels<1>(columns + v * c * kPanelLanes, four, c, out + p * stride + v * kPanelLanes, stride);
      }
      for (std::int64_t p = 0; p < count; ++p) {
        // What is written behind the last channel of a pixel, the next pixels overwrite.
        for (std::int64_t v = 0; v < c; v += kPanelLanes) {
          const simd::Vec values = simd::load(out + p * stride + v);
          G* to = g + (first + p) * c + v;
          const bool whole = p * c + v + kPanelLanes <= count * c;
          whole ? simd::store(to, values) : simd::store_some(to, values, std::min(kPanelLanes, c - v));
        }
      }
    }
  });
}

}  // namespace limbeck::distill
