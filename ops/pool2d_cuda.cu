// Pooling on the GPU, channels-last: a thread per window and 16 bytes of channels. Large windows (global pooling) are
// shared by the threads of a block. Backward gathers: each input pixel adds up the windows that cover it.
#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
#include "ops/pool2d_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

constexpr std::int64_t kLargeWindow = 64;

/// Place of item `i` in a map of `height` x `width` pixels of `vectors` vectors.
struct Place {
  unsigned image, h, w, v;
  __device__ Place(unsigned i, unsigned height, unsigned width, unsigned vectors) {
    v = i % vectors;
    i /= vectors;
    w = i % width;
    i /= width;
    h = i % height;
    image = i / height;
  }
};

struct PoolShape {
  PoolAxis rows, columns;
  unsigned channels, items;  // items: vectors of the map that the kernel writes

  __device__ std::size_t input(unsigned image, std::int64_t h, std::int64_t w) const {
    return ((static_cast<std::size_t>(image) * static_cast<std::size_t>(rows.in) + static_cast<std::size_t>(h)) *
                static_cast<std::size_t>(columns.in) +
            static_cast<std::size_t>(w)) *
           channels;
  }
  __device__ std::size_t output(unsigned image, std::int64_t h, std::int64_t w) const {
    return ((static_cast<std::size_t>(image) * static_cast<std::size_t>(rows.out) + static_cast<std::size_t>(h)) *
                static_cast<std::size_t>(columns.out) +
            static_cast<std::size_t>(w)) *
           channels;
  }
};

/// I: u8 or i32; `indices` is null when nobody wants them.
template <int V, class T, class I>
__global__ void max_kernel(PoolShape s, const T* x, T* y, I* indices) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, static_cast<unsigned>(s.rows.out), static_cast<unsigned>(s.columns.out), s.channels / V);
    float best[V];
    int where[V];
    for (int j = 0; j < V; ++j) {
      best[j] = -INFINITY;
      where[j] = -1;
    }
    for (std::int64_t h = s.rows.begin(at.h); h < s.rows.end(at.h); ++h) {
      for (std::int64_t w = s.columns.begin(at.w); w < s.columns.end(at.w); ++w) {
        float value[V];
        load<V>(x + s.input(at.image, h, w) + at.v * V, value);
        const auto here = static_cast<int>((h - s.rows.origin(at.h)) * s.columns.kernel + (w - s.columns.origin(at.w)));
        for (int j = 0; j < V; ++j) {
          if (where[j] >= 0 && !(value[j] > best[j] || value[j] != value[j])) continue;
          best[j] = value[j];
          where[j] = here;
        }
      }
    }
    const std::size_t out = s.output(at.image, at.h, at.w) + at.v * V;
    store<V>(y + out, best);
    if (indices == nullptr) continue;
    for (int j = 0; j < V; ++j) indices[out + j] = static_cast<I>(where[j]);
  }
}

template <int V, class T, class I>
__global__ void max_backward_kernel(PoolShape s, const T* gy, const I* indices, T* gx) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, static_cast<unsigned>(s.rows.in), static_cast<unsigned>(s.columns.in), s.channels / V);
    float sum[V] = {};
    for (std::int64_t oh = s.rows.first_cover(at.h); oh <= s.rows.last_cover(at.h); ++oh) {
      for (std::int64_t ow = s.columns.first_cover(at.w); ow <= s.columns.last_cover(at.w); ++ow) {
        const std::size_t out = s.output(at.image, oh, ow) + at.v * V;
        const auto here =
            static_cast<int>((at.h - s.rows.origin(oh)) * s.columns.kernel + (at.w - s.columns.origin(ow)));
        float g[V];
        load<V>(gy + out, g);
        for (int j = 0; j < V; ++j) sum[j] += static_cast<int>(indices[out + j]) == here ? g[j] : 0.0F;
      }
    }
    store<V>(gx + s.input(at.image, at.h, at.w) + at.v * V, sum);
  }
}

template <int V, class T>
__global__ void avg_kernel(PoolShape s, const T* x, T* y) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, static_cast<unsigned>(s.rows.out), static_cast<unsigned>(s.columns.out), s.channels / V);
    float sum[V] = {};
    for (std::int64_t h = s.rows.begin(at.h); h < s.rows.end(at.h); ++h) {
      for (std::int64_t w = s.columns.begin(at.w); w < s.columns.end(at.w); ++w) {
        float value[V];
        load<V>(x + s.input(at.image, h, w) + at.v * V, value);
        for (int j = 0; j < V; ++j) sum[j] += value[j];
      }
    }
    const auto divisor = static_cast<float>(s.rows.divisor(at.h) * s.columns.divisor(at.w));
    for (int j = 0; j < V; ++j) sum[j] /= divisor;
    store<V>(y + s.output(at.image, at.h, at.w) + at.v * V, sum);
  }
}

/// A large window: its pixels are the rows of a column reduction, the windows its stacks.
template <int V, class T>
struct WindowMean {
  struct Acc {
    float sum[V];
  };
  PoolShape s;
  const T* x;
  T* y;

  __device__ void window(unsigned stack, unsigned& image, std::int64_t& oh, std::int64_t& ow) const {
    ow = stack % static_cast<unsigned>(s.columns.out);
    oh = stack / static_cast<unsigned>(s.columns.out) % static_cast<unsigned>(s.rows.out);
    image = stack / static_cast<unsigned>(s.columns.out) / static_cast<unsigned>(s.rows.out);
  }
  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = 0;
  }
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned v) const {
    unsigned image;
    std::int64_t oh;
    std::int64_t ow;
    window(stack, image, oh, ow);
    // Windows differ in size by a row or column: `row` counts the pixels of the largest.
    const std::int64_t width = s.columns.end(ow) - s.columns.begin(ow);
    const std::int64_t h = s.rows.begin(oh) + row / width;
    if (h >= s.rows.end(oh)) return;
    float value[V];
    load<V>(x + s.input(image, h, s.columns.begin(ow) + row % width) + v * V, value);
    for (int j = 0; j < V; ++j) a.sum[j] += value[j];
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) a.sum[j] += b.sum[j];
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned v) const {
    unsigned image;
    std::int64_t oh;
    std::int64_t ow;
    window(stack, image, oh, ow);
    const auto divisor = static_cast<float>(s.rows.divisor(oh) * s.columns.divisor(ow));
    float mean[V];
    for (int j = 0; j < V; ++j) mean[j] = a.sum[j] / divisor;
    store<V>(y + s.output(image, oh, ow) + v * V, mean);
  }
};

template <int V, class T>
__global__ void avg_backward_kernel(PoolShape s, const T* gy, T* gx) {
  for (unsigned i = first(); i < s.items; i += step()) {
    const Place at(i, static_cast<unsigned>(s.rows.in), static_cast<unsigned>(s.columns.in), s.channels / V);
    float sum[V] = {};
    for (std::int64_t oh = s.rows.first_cover(at.h); oh <= s.rows.last_cover(at.h); ++oh) {
      for (std::int64_t ow = s.columns.first_cover(at.w); ow <= s.columns.last_cover(at.w); ++ow) {
        const auto divisor = static_cast<float>(s.rows.divisor(oh) * s.columns.divisor(ow));
        float g[V];
        load<V>(gy + s.output(at.image, oh, ow) + at.v * V, g);
        for (int j = 0; j < V; ++j) sum[j] += g[j] / divisor;
      }
    }
    store<V>(gx + s.input(at.image, at.h, at.w) + at.v * V, sum);
  }
}

PoolShape make_shape(const PoolAxis& rows, const PoolAxis& columns, const TensorView& written, int lanes) {
  const std::int64_t items = written.numel() / lanes;
  LIMBECK_CHECK(items < (std::int64_t{1} << 32), "pool2d", "a map of shape {} has too many elements", written.shape);
  return {rows, columns, static_cast<unsigned>(written.c()), static_cast<unsigned>(items)};
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
      x.data, y.data);
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
      gy.data, gx.data);
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
