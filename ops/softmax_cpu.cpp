// Vectorised softmax for channels-last maps, f32 and bf16.
//   over channels  tiles of 32 pixels, transposed (ops/pixel_tile.h)
//   over space     rows with one lane per channel, chunk by chunk (ops/spatial_pass.h)
#include <cmath>
#include <limits>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "ops/map_view.h"
#include "ops/pixel_tile.h"
#include "ops/softmax_kernels.h"
#include "ops/spatial_pass.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kP = kTilePixels;

/// Runs `body(first pixel, count, scratch)` on all tiles of a map, with `rows` rows of kP floats of scratch per thread.
template <class Body>
void for_tiles(const TensorView& v, std::int64_t rows, const Body& body) {
  const TilePlan plan(pixel_count(v));
  parallel_for(plan.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(rows * kP) * sizeof(float));
    for (std::int64_t b = begin; b < end; ++b) {
      plan.for_block(b, [&](std::int64_t first, std::int64_t count) { body(first, count, scratch.as<float>()); });
    }
  });
}

// --- over channels ------------------------------------------------------------------------------------------------

void softmax_tile(float* x, std::int64_t c, bool logarithm) {
  float largest[kP];
  float sum[kP] = {};
  tile_max(x, c, largest);
  for (std::int64_t ch = 0; ch < c; ++ch) {
    float* row = x + ch * kP;
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) {
      const float shifted = row[p] - largest[p];
      const float e = fast_exp(shifted);
      sum[p] += e;
      row[p] = logarithm ? shifted : e;
    }
  }
  float last[kP];
#pragma omp simd
  for (std::int64_t p = 0; p < kP; ++p) last[p] = logarithm ? fast_log(sum[p]) : 1.0F / sum[p];
  for (std::int64_t ch = 0; ch < c; ++ch) {
    float* row = x + ch * kP;
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) row[p] = logarithm ? row[p] - last[p] : row[p] * last[p];
  }
}

/// Leaves the gradient in `g`.
void softmax_backward_tile(const float* y, float* g, std::int64_t c, bool logarithm) {
  float sum[kP] = {};
  for (std::int64_t ch = 0; ch < c; ++ch) {
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) sum[p] += g[ch * kP + p] * (logarithm ? 1.0F : y[ch * kP + p]);
  }
  for (std::int64_t ch = 0; ch < c; ++ch) {
    const float* yr = y + ch * kP;
    float* gr = g + ch * kP;
    if (logarithm) {
#pragma omp simd
      for (std::int64_t p = 0; p < kP; ++p) gr[p] -= fast_exp(yr[p]) * sum[p];
    } else {
#pragma omp simd
      for (std::int64_t p = 0; p < kP; ++p) gr[p] = yr[p] * (gr[p] - sum[p]);
    }
  }
}

// --- over space ---------------------------------------------------------------------------------------------------

/// Per chunk and channel: the maximum, and the sum of exp(x - maximum).
template <class T>
void chunk_statistics(const SpatialPlan& plan, const T* x, double* largest, double* sum) {
  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * plan.row) * sizeof(float));
    float* m = scratch.as<float>();
    float* z = m + plan.row;
    for (std::int64_t k = begin; k < end; ++k) {
      const T* xc = x + plan.begin(k);
      chunk_max(plan, xc, plan.length(k), m);
      std::fill_n(z, plan.row, 0.0F);
      for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) z[j] += fast_exp(static_cast<float>(xc[at + j]) - m[j]);
      });
      for (std::int64_t ch = 0; ch < plan.c; ++ch) largest[k * plan.c + ch] = static_cast<double>(m[ch]);
      fold_sum(plan, z, sum + k * plan.c);
    }
  });
}

/// Brings the chunks of every image to a common maximum and adds them up, in order.
void image_statistics(const SpatialPlan& plan, const double* chunk_largest, const double* chunk_sum, double* largest,
                      double* sum) {
  for (std::int64_t n = 0; n < plan.images; ++n) {
    const std::int64_t first = n * plan.chunks * plan.c;
    const std::int64_t end = first + plan.chunks * plan.c;
    double* m = largest + n * plan.c;
    double* z = sum + n * plan.c;
    std::copy_n(chunk_largest + first, plan.c, m);
    for (std::int64_t i = first; i < end; i += plan.c) {
      for (std::int64_t ch = 0; ch < plan.c; ++ch) m[ch] = std::max(m[ch], chunk_largest[i + ch]);
    }
    std::fill_n(z, plan.c, 0.0);
    for (std::int64_t i = first; i < end; i += plan.c) {
#pragma omp simd
      for (std::int64_t ch = 0; ch < plan.c; ++ch) {
        z[ch] += chunk_sum[i + ch] * static_cast<double>(fast_exp(static_cast<float>(chunk_largest[i + ch] - m[ch])));
      }
    }
  }
}

template <class T>
void softmax_spatial(const TensorView& x, const TensorView& y, bool logarithm) {
  const SpatialPlan plan(x);
  const std::int64_t chunk_slots = plan.total_chunks() * plan.c;
  const std::int64_t image_slots = plan.images * plan.c;
  const Workspace partial(static_cast<std::size_t>(2 * (chunk_slots + image_slots)) * sizeof(double));
  double* chunk_largest = partial.as<double>();
  double* chunk_sum = chunk_largest + chunk_slots;
  double* largest = chunk_sum + chunk_slots;
  double* last = largest + image_slots;  // the sum, then the last factor or term of the formula
  chunk_statistics(plan, x.ptr<T>(), chunk_largest, chunk_sum);
  image_statistics(plan, chunk_largest, chunk_sum, largest, last);
  for (std::int64_t i = 0; i < image_slots; ++i) last[i] = logarithm ? std::log(last[i]) : 1.0 / last[i];

  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * plan.row) * sizeof(float));
    float* m = scratch.as<float>();
    float* l = m + plan.row;
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t slot = k / plan.chunks * plan.c;
      spread(plan, largest + slot, m);
      spread(plan, last + slot, l);
      const T* xc = x.ptr<T>() + plan.begin(k);
      T* yc = y.ptr<T>() + plan.begin(k);
      for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          const float shifted = static_cast<float>(xc[at + j]) - m[j];
          yc[at + j] = static_cast<T>(logarithm ? shifted - l[j] : fast_exp(shifted) * l[j]);
        }
      });
    }
  });
}

template <class T>
void softmax_spatial_backward(const TensorView& y, const TensorView& gy, const TensorView& gx, bool logarithm) {
  const SpatialPlan plan(y);
  const Workspace partial(static_cast<std::size_t>(plan.total_chunks() * plan.c) * sizeof(double));
  double* sums = partial.as<double>();
  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(plan.row) * sizeof(float));
    float* lane = scratch.as<float>();
    for (std::int64_t k = begin; k < end; ++k) {
      const T* yc = y.ptr<T>() + plan.begin(k);
      const T* gc = gy.ptr<T>() + plan.begin(k);
      std::fill_n(lane, plan.row, 0.0F);
      for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          lane[j] += static_cast<float>(gc[at + j]) * (logarithm ? 1.0F : static_cast<float>(yc[at + j]));
        }
      });
      fold_sum(plan, lane, sums + k * plan.c);
    }
  });
  for (std::int64_t n = 0; n < plan.images; ++n) {
    for (std::int64_t ch = 0; ch < plan.c; ++ch) {
      double* s = sums + n * plan.chunks * plan.c + ch;
      for (std::int64_t k = 1; k < plan.chunks; ++k) s[0] += s[k * plan.c];
    }
  }
  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(plan.row) * sizeof(float));
    float* lane = scratch.as<float>();
    for (std::int64_t k = begin; k < end; ++k) {
      spread(plan, sums + k / plan.chunks * plan.chunks * plan.c, lane);
      const T* yc = y.ptr<T>() + plan.begin(k);
      const T* gc = gy.ptr<T>() + plan.begin(k);
      T* out = gx.ptr<T>() + plan.begin(k);
      for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          const auto value = static_cast<float>(yc[at + j]);
          const auto g = static_cast<float>(gc[at + j]);
          out[at + j] = static_cast<T>(logarithm ? g - fast_exp(value) * lane[j] : value * (g - lane[j]));
        }
      });
    }
  });
}

}  // namespace

void softmax_cpu(const TensorView& x, const TensorView& y, const SoftmaxArgs& args) {
  visit_fast_dtype("softmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.axis == SoftmaxAxis::kSpatial) {
      softmax_spatial<T>(x, y, args.logarithm);
      return;
    }
    const std::int64_t c = x.c();
    for_tiles(x, c, [&](std::int64_t first, std::int64_t count, float* tile) {
      load_tile(x.ptr<T>() + first * c, c, count, tile);
      softmax_tile(tile, c, args.logarithm);
      store_tile(tile, c, count, y.ptr<T>() + first * c);
    });
  });
}

void softmax_backward_cpu(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args) {
  visit_fast_dtype("softmax_backward", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.axis == SoftmaxAxis::kSpatial) {
      softmax_spatial_backward<T>(y, gy, gx, args.logarithm);
      return;
    }
    const std::int64_t c = y.c();
    for_tiles(y, 2 * c, [&](std::int64_t first, std::int64_t count, float* tile) {
      float* g = tile + c * kP;
      load_tile(y.ptr<T>() + first * c, c, count, tile);
      load_tile(gy.ptr<T>() + first * c, c, count, g);
      softmax_backward_tile(tile, g, c, args.logarithm);
      store_tile(g, c, count, gx.ptr<T>() + first * c);
    });
  });
}

}  // namespace limbeck::ops
