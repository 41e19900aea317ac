// Pooling on the GPU, channels-last: a thread per window and 16 bytes of channels. Large windows (global pooling) are
// shared by the threads of a block. Backward gathers: each input pixel adds up the windows that cover it.
#include <algorithm>

#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
#include "ops/pool2d_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

constexpr std::int64_t kLargeWindow = 64;

/// Place of item `i` in a map of `height` x `width` pixels of `vectors` vectors.
struct Place {
  unsigned image;
  int h, w;
  unsigned v;
  __device__ Place(unsigned i, int height, int width, unsigned vectors) {
    v = i % vectors;
    i /= vectors;
    w = static_cast<int>(i % static_cast<unsigned>(width));
    i /= static_cast<unsigned>(width);
    h = static_cast<int>(i % static_cast<unsigned>(height));
    image = i / static_cast<unsigned>(height);
  }
};

/// In 32 bits: a division of 64 takes a hundred instructions.
using Axis = BasicPoolAxis<int>;

struct PoolShape {
  Axis rows, columns;
  unsigned channels, items;  // items: vectors of the map that the kernel writes

  __device__ std::size_t input(unsigned image, int h, int w) const { return at(image, rows.in, columns.in, h, w); }
  __device__ std::size_t output(unsigned image, int h, int w) const { return at(image, rows.out, columns.out, h, w); }

 private:
  __device__ std::size_t at(unsigned image, int height, int width, int h, int w) const {
    const unsigned row = image * static_cast<unsigned>(height) + static_cast<unsigned>(h);
    const unsigned pixel = row * static_cast<unsigned>(width) + static_cast<unsigned>(w);
    return static_cast<std::size_t>(pixel) * channels;
  }
};

/// V consecutive indices; V is 1, 4 or 8.
template <int V, class I>
__device__ inline void load_indices(const I* p, int (&out)[V]) {
  if constexpr (V == 1) {
    out[0] = static_cast<int>(*p);
  } else if constexpr (sizeof(I) == 1) {
    for (int w = 0; w < V / 4; ++w) {
      const unsigned word = reinterpret_cast<const unsigned*>(p)[w];
      for (int j = 0; j < 4; ++j) out[4 * w + j] = static_cast<int>(word >> (8 * j) & 0xFFU);
    }
  } else {
    for (int w = 0; w < V / 4; ++w) {
      const uint4 q = reinterpret_cast<const uint4*>(p)[w];
      out[4 * w] = static_cast<int>(q.x), out[4 * w + 1] = static_cast<int>(q.y);
      out[4 * w + 2] = static_cast<int>(q.z), out[4 * w + 3] = static_cast<int>(q.w);
    }
  }
}
template <int V, class I>
__device__ inline void store_indices(I* p, const int (&v)[V]) {
  if constexpr (V == 1) {
    *p = static_cast<I>(v[0]);
  } else if constexpr (sizeof(I) == 1) {
    for (int w = 0; w < V / 4; ++w) {
      unsigned word = 0;
      for (int j = 0; j < 4; ++j) word |= (static_cast<unsigned>(v[4 * w + j]) & 0xFFU) << (8 * j);
      reinterpret_cast<unsigned*>(p)[w] = word;
    }
  } else {
    for (int w = 0; w < V / 4; ++w) {
      reinterpret_cast<uint4*>(p)[w] =
          make_uint4(static_cast<unsigned>(v[4 * w]), static_cast<unsigned>(v[4 * w + 1]),
                     static_cast<unsigned>(v[4 * w + 2]), static_cast<unsigned>(v[4 * w + 3]));
    }
  }
}

/// I: u8 or i32; `indices` is null when nobody wants them.
template <int V, class T, class I>
__global__ void max_kernel(PoolShape s, const T* x, T* y, I* indices) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, s.rows.out, s.columns.out, s.channels / V);
    float best[V];
    int where[V];
    for (int j = 0; j < V; ++j) {
      best[j] = -INFINITY;
      where[j] = -1;
    }
    const int column_end = s.columns.end(at.w);
    for (int h = s.rows.begin(at.h); h < s.rows.end(at.h); ++h) {
      for (int w = s.columns.begin(at.w); w < column_end; ++w) {
        float value[V];
        load<V>(x + s.input(at.image, h, w) + at.v * V, value);
        const int here = (h - s.rows.origin(at.h)) * s.columns.kernel + (w - s.columns.origin(at.w));
        for (int j = 0; j < V; ++j) {
          if (where[j] >= 0 && !(value[j] > best[j] || value[j] != value[j])) continue;
          best[j] = value[j];
          where[j] = here;
        }
      }
    }
    const std::size_t out = s.output(at.image, at.h, at.w) + at.v * V;
    store<V>(y + out, best);
    if (indices != nullptr) store_indices<V>(indices + out, where);
  }
}

template <int V, class T, class I>
__global__ void max_backward_kernel(PoolShape s, const T* gy, const I* indices, T* gx) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, s.rows.in, s.columns.in, s.channels / V);
    float sum[V] = {};
    const int row_last = s.rows.last_cover(at.h);
    const int column_first = s.columns.first_cover(at.w);
    const int column_last = s.columns.last_cover(at.w);
    for (int oh = s.rows.first_cover(at.h); oh <= row_last; ++oh) {
      for (int ow = column_first; ow <= column_last; ++ow) {
        const std::size_t out = s.output(at.image, oh, ow) + at.v * V;
        const int here = (at.h - s.rows.origin(oh)) * s.columns.kernel + (at.w - s.columns.origin(ow));
        float g[V];
        int where[V];
        load<V>(gy + out, g);
        load_indices<V>(indices + out, where);
        for (int j = 0; j < V; ++j) sum[j] += where[j] == here ? g[j] : 0.0F;
      }
    }
    store<V>(gx + s.input(at.image, at.h, at.w) + at.v * V, sum);
  }
}

template <int V, class T>
__global__ void avg_kernel(PoolShape s, const T* x, T* y) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, s.rows.out, s.columns.out, s.channels / V);
    float sum[V] = {};
    const int column_end = s.columns.end(at.w);
    for (int h = s.rows.begin(at.h); h < s.rows.end(at.h); ++h) {
      for (int w = s.columns.begin(at.w); w < column_end; ++w) {
        float value[V];
        load<V>(x + s.input(at.image, h, w) + at.v * V, value);
        for (int j = 0; j < V; ++j) sum[j] += value[j];
      }
    }
    const float share = 1.0F / static_cast<float>(s.rows.divisor(at.h) * s.columns.divisor(at.w));
    for (int j = 0; j < V; ++j) sum[j] *= share;
    store<V>(y + s.output(at.image, at.h, at.w) + at.v * V, sum);
  }
}

/// A large window: its pixels are the rows of a column reduction, the windows its stacks.
template <int V, class T>
struct WindowMean {
  struct alignas(kAlignment<V>) Acc {
    float sum[V];
  };
  PoolShape s;
  const T* x;
  T* y;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = 0;
  }
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned v) const {
    const Place at(stack, s.rows.out, s.columns.out, 1);
    // Windows differ in size by a row or column: `row` counts the pixels of the largest.
    const int left = s.columns.begin(at.w);
    const auto width = static_cast<unsigned>(s.columns.end(at.w) - left);
    const int h = s.rows.begin(at.h) + static_cast<int>(row / width);
    if (h >= s.rows.end(at.h)) return;
    float value[V];
    load<V>(x + s.input(at.image, h, left + static_cast<int>(row % width)) + v * V, value);
    for (int j = 0; j < V; ++j) a.sum[j] += value[j];
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) a.sum[j] += b.sum[j];
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned v) const {
    const Place at(stack, s.rows.out, s.columns.out, 1);
    const float share = 1.0F / static_cast<float>(s.rows.divisor(at.h) * s.columns.divisor(at.w));
    float mean[V];
    for (int j = 0; j < V; ++j) mean[j] = a.sum[j] * share;
    store<V>(y + s.output(at.image, at.h, at.w) + v * V, mean);
  }
};

template <int V, class T>
__global__ void avg_backward_kernel(PoolShape s, const T* gy, T* gx) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, s.rows.in, s.columns.in, s.channels / V);
    float sum[V] = {};
    const int row_last = s.rows.last_cover(at.h);
    const int column_first = s.columns.first_cover(at.w);
    const int column_last = s.columns.last_cover(at.w);
    for (int oh = s.rows.first_cover(at.h); oh <= row_last; ++oh) {
      for (int ow = column_first; ow <= column_last; ++ow) {
        const float share = 1.0F / static_cast<float>(s.rows.divisor(oh) * s.columns.divisor(ow));
        float g[V];
        load<V>(gy + s.output(at.image, oh, ow) + at.v * V, g);
        for (int j = 0; j < V; ++j) sum[j] += g[j] * share;
      }
    }
    store<V>(gx + s.input(at.image, at.h, at.w) + at.v * V, sum);
  }
}

PoolShape make_shape(const PoolAxis& rows, const PoolAxis& columns, const TensorView& written, int lanes) {
  const std::int64_t items = written.numel() / lanes;
  LIMBECK_CHECK(items < (std::int64_t{1} << 32), "pool2d", "a map of shape {} has too many elements", written.shape);
  const auto narrow = [&](const PoolAxis& a) {
    constexpr std::int64_t kMost = 32768;  // products of two sides fit
    LIMBECK_CHECK(std::max({a.in, a.out, a.kernel, a.stride, a.padding}) <= kMost, "pool2d",
                  "an axis from {} to {} with windows of {}, expected at most {}", a.in, a.out, a.kernel, kMost);
    const auto n = [](std::int64_t v) { return static_cast<int>(v); };
    return Axis{n(a.in), n(a.out), n(a.kernel), n(a.stride), n(a.padding), a.count_padding};
  };
  const Axis h = narrow(rows);
  const Axis w = narrow(columns);
  LIMBECK_CHECK(written.n() * std::max(rows.in * columns.in, rows.out * columns.out) < (std::int64_t{1} << 32),
                "pool2d", "maps of {} images of {} x {} pixels have too many", written.n(), rows.in, columns.in);
  return {h, w, static_cast<unsigned>(written.c()), static_cast<unsigned>(items)};
}

/// Calls f(I*) with the type of the indices.
template <class F>
void visit_indices(const TensorView& indices, F&& f) {
  if (indices.defined() && indices.dtype == DType::kI32) {
    f(indices.ptr<std::int32_t>());
  } else {
    f(indices.ptr<std::uint8_t>());
  }
}

}  // namespace

void max_pool_cuda(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                   const TensorView& indices) {
  visit_vectors(
      "max_pool2d", x.dtype, x.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const PoolShape s = make_shape(rows, columns, y, V);
        visit_indices(indices, [&](auto* where) {
          using I = std::remove_pointer_t<decltype(where)>;
          launch(max_kernel<V, T, I>, grid_for(s.items), kBlock, s, x.ptr<const T>(), y.ptr<T>(), where);
        });
      },
      x.data, y.data, indices.data);
}

void max_pool_backward_cuda(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                            const PoolAxis& columns, const TensorView& gx) {
  visit_vectors(
      "max_pool2d", gy.dtype, gy.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const PoolShape s = make_shape(rows, columns, gx, V);
        visit_indices(indices, [&](auto* where) {
          using I = std::remove_pointer_t<decltype(where)>;
          launch(max_backward_kernel<V, T, I>, grid_for(s.items), kBlock, s, gy.ptr<const T>(), where, gx.ptr<T>());
        });
      },
      gy.data, gx.data, indices.data);
}

void avg_pool_cuda(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y) {
  // The largest window: strided ones have kernel^2 pixels, adaptive ones differ by one along each axis.
  const std::int64_t height = rows.adaptive() ? (rows.in + rows.out - 1) / rows.out + 1 : rows.kernel;
  const std::int64_t width = columns.adaptive() ? (columns.in + columns.out - 1) / columns.out + 1 : columns.kernel;
  const std::int64_t windows = y.n() * y.h() * y.w();
  visit_vectors(
      "avg_pool2d", x.dtype, x.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const PoolShape s = make_shape(rows, columns, y, V);
        if (height * width >= kLargeWindow && windows <= 65535) {
          reduce_columns(WindowMean<V, T>{s, x.ptr<const T>(), y.ptr<T>()}, windows, height * width, x.c() / V);
        } else {
          launch(avg_kernel<V, T>, grid_for(s.items), kBlock, s, x.ptr<const T>(), y.ptr<T>());
        }
      },
      x.data, y.data);
}

void avg_pool_backward_cuda(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx) {
  visit_vectors(
      "avg_pool2d", gy.dtype, gy.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const PoolShape s = make_shape(rows, columns, gx, V);
        launch(avg_backward_kernel<V, T>, grid_for(s.items), kBlock, s, gy.ptr<const T>(), gx.ptr<T>());
      },
      gy.data, gx.data);
}

}  // namespace limbeck::ops
