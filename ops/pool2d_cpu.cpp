// What this is: fast pooling on the CPU, f32 and bf16, channels-last: the innermost loop runs over channels.
//   The backward passes gather: each input pixel collects from the windows that cover it, so threads never write to the
//   same place and the order of additions is fixed.
// Read next: ops/pool2d_ref.cpp for the formulas.
#include <algorithm>

#include "core/parallel.h"
#include "ops/pool2d_kernels.h"
#include "ops/row_store.h"

namespace limbeck::ops {
namespace {

/// Channels handled at once: their running values stay in registers and the first-level cache.
constexpr std::int64_t kChunk = 64;
/// Elements below which another thread does not pay.
constexpr std::int64_t kGrain = 16384;

/// Element offset of pixel (n, h, w) in a dense channels-last map.
std::int64_t pixel(const TensorView& v, std::int64_t n, std::int64_t h, std::int64_t w) {
  return ((n * v.h() + h) * v.w() + w) * v.c();
}

/// Calls body(n, h) for every image row of `v`, in parallel; `work` is the cost of one element in elements.
template <class Body>
void for_each_row(const TensorView& v, std::int64_t work, const Body& body) {
  const std::int64_t row_cost = std::max<std::int64_t>(v.w() * v.c() * work, 1);
  parallel_for(v.n() * v.h(), kGrain / row_cost + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i / v.h(), i % v.h());
  });
}

/// Writes a chunk of floats to the output.
void store(const float* in, float* out, std::int64_t n) { std::copy_n(in, n, out); }
void store(const float* in, bfloat16* out, std::int64_t n) { round_row(in, out, n); }

/// best = max(best, x), and where x wins, place = k. NaN wins over anything.
template <bool kPlaces, class T>
void take_maximum(const T* __restrict x, std::int64_t n, std::int32_t k, float* __restrict best,
                  std::int32_t* __restrict place) {
#pragma omp simd
  for (std::int64_t c = 0; c < n; ++c) {
    const float value = static_cast<float>(x[c]);
    const bool wins = !(value <= best[c]) && best[c] == best[c];
    best[c] = wins ? value : best[c];
    if constexpr (kPlaces) place[c] = wins ? k : place[c];
  }
}

template <bool kPlaces, class T, class Index>
void max_pool(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y, Index* indices) {
  for_each_row(y, rows.kernel * columns.kernel, [&](std::int64_t n, std::int64_t oh) {
    alignas(64) float best[kChunk];
    alignas(64) std::int32_t place[kChunk];
    for (std::int64_t ow = 0; ow < y.w(); ++ow) {
      for (std::int64_t c = 0; c < x.c(); c += kChunk) {
        const std::int64_t count = std::min(kChunk, x.c() - c);
        bool first = true;
        for (std::int64_t h = rows.begin(oh); h < rows.end(oh); ++h) {
          for (std::int64_t w = columns.begin(ow); w < columns.end(ow); ++w) {
            const T* in = x.ptr<T>() + pixel(x, n, h, w) + c;
            const auto k = static_cast<std::int32_t>((h - rows.origin(oh)) * columns.kernel + (w - columns.origin(ow)));
            if (first) {
              for (std::int64_t i = 0; i < count; ++i) best[i] = static_cast<float>(in[i]);
              if constexpr (kPlaces) std::fill_n(place, count, k);
              first = false;
            } else {
              take_maximum<kPlaces>(in, count, k, best, place);
            }
          }
        }
        const std::int64_t out = pixel(y, n, oh, ow) + c;
        store(best, y.ptr<T>() + out, count);
        if constexpr (kPlaces) {
          for (std::int64_t i = 0; i < count; ++i) indices[out + i] = static_cast<Index>(place[i]);
        }
      }
    }
  });
}

template <class T, class Index>
void max_pool_backward(const TensorView& gy, const Index* indices, const PoolAxis& rows, const PoolAxis& columns,
                       const TensorView& gx) {
  const std::int64_t overlap = (rows.kernel * columns.kernel) / (rows.stride * columns.stride) + 1;
  for_each_row(gx, overlap, [&](std::int64_t n, std::int64_t h) {
    alignas(64) float sum[kChunk];
    for (std::int64_t w = 0; w < gx.w(); ++w) {
      for (std::int64_t c = 0; c < gx.c(); c += kChunk) {
        const std::int64_t count = std::min(kChunk, gx.c() - c);
        std::fill_n(sum, count, 0.0F);
        for (std::int64_t oh = rows.first_cover(h); oh <= rows.last_cover(h); ++oh) {
          for (std::int64_t ow = columns.first_cover(w); ow <= columns.last_cover(w); ++ow) {
            const auto k = static_cast<std::int32_t>((h - rows.origin(oh)) * columns.kernel + (w - columns.origin(ow)));
            const std::int64_t out = pixel(gy, n, oh, ow) + c;
            const T* __restrict g = gy.ptr<T>() + out;
            const Index* __restrict place = indices + out;
#pragma omp simd
            for (std::int64_t i = 0; i < count; ++i) {
              sum[i] += static_cast<std::int32_t>(place[i]) == k ? static_cast<float>(g[i]) : 0.0F;
            }
          }
        }
        store(sum, gx.ptr<T>() + pixel(gx, n, h, w) + c, count);
      }
    }
  });
}

/// Calls f with the element type of the indices.
template <class F>
void visit_index(const TensorView& indices, F&& f) {
  if (indices.dtype == DType::kU8) {
    f(indices.ptr<std::uint8_t>());
  } else {
    f(indices.ptr<std::int32_t>());
  }
}

}  // namespace

void max_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                  const TensorView& indices) {
  visit_fast_dtype("max_pool2d", x.dtype, [&]<class T>(T) {
    if (indices.defined()) {
      visit_index(indices, [&](auto* places) { max_pool<true, T>(x, rows, columns, y, places); });
    } else {
      max_pool<false, T, std::uint8_t>(x, rows, columns, y, nullptr);
    }
  });
}

void max_pool_backward_cpu(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                           const PoolAxis& columns, const TensorView& gx) {
  visit_fast_dtype("max_pool2d", gy.dtype, [&]<class T>(T) {
    visit_index(indices, [&](const auto* places) { max_pool_backward<T>(gy, places, rows, columns, gx); });
  });
}

void avg_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y) {
  // One task is one chunk of channels of one output pixel: even a global pool of one image keeps all threads busy.
  const std::int64_t chunks = (x.c() + kChunk - 1) / kChunk;
  const std::int64_t tasks = y.n() * y.h() * y.w() * chunks;
  const std::int64_t task_cost = std::max<std::int64_t>(x.numel() / tasks, 1);
  visit_fast_dtype("avg_pool2d", x.dtype, [&]<class T>(T) {
    parallel_for(tasks, kGrain / task_cost + 1, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float row[kChunk];
      alignas(64) float sum[kChunk];
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t c = task % chunks * kChunk;
        const std::int64_t ow = task / chunks % y.w();
        const std::int64_t oh = task / chunks / y.w() % y.h();
        const std::int64_t n = task / chunks / y.w() / y.h();
        const std::int64_t count = std::min(kChunk, x.c() - c);
        std::fill_n(sum, count, 0.0F);
        for (std::int64_t h = rows.begin(oh); h < rows.end(oh); ++h) {
          // Rows are summed on their own first: long chains of float additions lose digits.
          std::fill_n(row, count, 0.0F);
          for (std::int64_t w = columns.begin(ow); w < columns.end(ow); ++w) {
            const T* __restrict in = x.ptr<T>() + pixel(x, n, h, w) + c;
#pragma omp simd
            for (std::int64_t i = 0; i < count; ++i) row[i] += static_cast<float>(in[i]);
          }
          for (std::int64_t i = 0; i < count; ++i) sum[i] += row[i];
        }
        const float weight = 1.0F / static_cast<float>(rows.divisor(oh) * columns.divisor(ow));
        for (std::int64_t i = 0; i < count; ++i) sum[i] *= weight;
        store(sum, y.ptr<T>() + pixel(y, n, oh, ow) + c, count);
      }
    });
  });
}

void avg_pool_backward_cpu(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx) {
  visit_fast_dtype("avg_pool2d", gy.dtype, [&]<class T>(T) {
    for_each_row(gx, 1, [&](std::int64_t n, std::int64_t h) {
      alignas(64) float sum[kChunk];
      for (std::int64_t w = 0; w < gx.w(); ++w) {
        for (std::int64_t c = 0; c < gx.c(); c += kChunk) {
          const std::int64_t count = std::min(kChunk, gx.c() - c);
          std::fill_n(sum, count, 0.0F);
          for (std::int64_t oh = rows.first_cover(h); oh <= rows.last_cover(h); ++oh) {
            for (std::int64_t ow = columns.first_cover(w); ow <= columns.last_cover(w); ++ow) {
              const float weight = 1.0F / static_cast<float>(rows.divisor(oh) * columns.divisor(ow));
              const T* __restrict g = gy.ptr<T>() + pixel(gy, n, oh, ow) + c;
#pragma omp simd
              for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * static_cast<float>(g[i]);
            }
          }
          store(sum, gx.ptr<T>() + pixel(gx, n, h, w) + c, count);
        }
      }
    });
  });
}

}  // namespace limbeck::ops
