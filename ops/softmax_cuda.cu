// Softmax on the GPU. Over channels: one thread per pixel or a few lanes of a warp, see pixel_rows.cuh. Over positions: a reduction over the rows of the
// channels-last map that carries maximum and sum together, then one pass that writes.
#include "core/cuda/columns.cuh"
#include "ops/pixel_rows.cuh"
#include "ops/softmax_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

template <class Access, class T>
__global__ void channel_kernel(Access access, const T* x, T* y, bool logarithm) {
  alignas(16) __shared__ unsigned char tile[Access::template kTileBytes<T>];
  const PixelLane at = access.lane();
  const auto row = access.load(x, at, 0, tile);
  const float largest = row.max();
  const float sum = row.sum([=](float v, unsigned, unsigned) { return expf(v - largest); });
  const float ln_sum = logf(sum);
  const float inverse = 1 / sum;
  if (at.active) {
    T* out = access.place(y, at, tile);
    row.each([&](float v, unsigned c, unsigned) {
      out[c] = from_float<T>(logarithm ? v - largest - ln_sum : expf(v - largest) * inverse);
    });
  }
  access.flush(y, 0, tile);
}

template <class Access, class T>
__global__ void channel_backward_kernel(Access access, const T* y, const T* gy, T* gx, bool logarithm) {
  alignas(16) __shared__ unsigned char tile[Access::template kTileBytes<T>];
  const PixelLane at = access.lane();
  const auto values = access.load(y, at, 0, tile);
  const auto slopes = access.load(gy, at, 0, tile);
  const float sum = slopes.sum([&](float g, unsigned, unsigned j) { return logarithm ? g : g * values.at(j); });
  if (at.active) {
    T* out = access.place(gx, at, tile);
    slopes.each([&](float g, unsigned c, unsigned j) {
      const float value = values.at(j);
      out[c] = from_float<T>(logarithm ? g - expf(value) * sum : value * (g - sum));
    });
  }
  access.flush(gx, 0, tile);
}

/// Maximum and sum of exponentials over the positions of each channel of each image.
template <int V, class T>
struct SpatialSums {
  struct alignas(kAlignment<V>) Acc {
    float largest[V], sum[V];
  };
  const T* x;
  float* largest;  // [N][C]
  float* sum;
  unsigned rows, channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) {
      a.largest[j] = -INFINITY;
      a.sum[j] = 0;
    }
  }
  __device__ static void join(float& largest, float& sum, float other, float other_sum) {
    if (other_sum == 0 || other == -INFINITY) return;  // adds nothing, and would make NaN of the difference below
    const float top = Max{}(largest, other);
    sum = (sum == 0 ? 0 : sum * expf(largest - top)) + other_sum * expf(other - top);
    largest = top;
  }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned v) const {
    float value[V];
    load<V>(x + (static_cast<std::size_t>(image) * rows + row) * channels + v * V, value);
    for (int j = 0; j < V; ++j) {  // join() with one number needs one exponential
      if (value[j] == -INFINITY) continue;
      const bool larger = value[j] > a.largest[j];
      const float factor = expf(larger ? a.largest[j] - value[j] : value[j] - a.largest[j]);
      a.sum[j] = larger ? a.sum[j] * factor + 1 : a.sum[j] + factor;
      if (larger) a.largest[j] = value[j];
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) join(a.largest[j], a.sum[j], b.largest[j], b.sum[j]);
  }
  __device__ void finish(const Acc& a, unsigned image, unsigned v) const {
    store<V>(largest + image * channels + v * V, a.largest);
    store<V>(sum + image * channels + v * V, a.sum);
  }
};

/// The sum that the backward pass subtracts: of gy, or of gy y.
template <int V, class T>
struct SpatialDot {
  struct alignas(kAlignment<V>) Acc {
    float sum[V];
  };
  const T* y;
  const T* gy;
  float* sum;  // [N][C]
  unsigned rows, channels;
  bool logarithm;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = 0;
  }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned v) const {
    const std::size_t at = (static_cast<std::size_t>(image) * rows + row) * channels + v * V;
    float g[V];
    float value[V];
    load<V>(gy + at, g);
    load<V>(y + at, value);
    for (int j = 0; j < V; ++j) a.sum[j] += logarithm ? g[j] : g[j] * value[j];
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) a.sum[j] += b.sum[j];
  }
  __device__ void finish(const Acc& a, unsigned image, unsigned v) const {
    store<V>(sum + image * channels + v * V, a.sum);
  }
};

template <int V, class T>
__global__ void spatial_kernel(const T* x, const float* largest, const float* sum, T* y, unsigned rows,
                               unsigned channels, unsigned vectors, bool logarithm) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const unsigned per_row = channels / V;
    const unsigned image = i / per_row / rows;
    const unsigned k = image * channels + i % per_row * V;
    float value[V];
    float top[V];
    float total[V];
    load<V>(x + static_cast<std::size_t>(i) * V, value);
    load<V>(largest + k, top);
    load<V>(sum + k, total);
    for (int j = 0; j < V; ++j) {
      const float shifted = value[j] - top[j];
      value[j] = logarithm ? shifted - logf(total[j]) : expf(shifted) / total[j];
    }
    store<V>(y + static_cast<std::size_t>(i) * V, value);
  }
}

template <int V, class T>
__global__ void spatial_backward_kernel(const T* y, const T* gy, const float* sum, T* gx, unsigned rows,
                                        unsigned channels, unsigned vectors, bool logarithm) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const unsigned per_row = channels / V;
    const unsigned k = i / per_row / rows * channels + i % per_row * V;
    float value[V];
    float g[V];
    float total[V];
    load<V>(y + static_cast<std::size_t>(i) * V, value);
    load<V>(gy + static_cast<std::size_t>(i) * V, g);
    load<V>(sum + k, total);
    for (int j = 0; j < V; ++j) g[j] = logarithm ? g[j] - expf(value[j]) * total[j] : value[j] * (g[j] - total[j]);
    store<V>(gx + static_cast<std::size_t>(i) * V, g);
  }
}

struct Sizes {
  unsigned rows, channels;
  std::int64_t pixels;
  explicit Sizes(const TensorView& x)
      : rows(static_cast<unsigned>(x.h() * x.w())),
        channels(static_cast<unsigned>(x.c())),
        pixels(x.n() * x.h() * x.w()) {
    LIMBECK_CHECK(pixels < (std::int64_t{1} << 31) / 32, "softmax", "a map of shape {} has too many pixels", x.shape);
  }
};

}  // namespace

void softmax_cuda(const TensorView& x, const TensorView& y, const SoftmaxArgs& args) {
  if (x.numel() == 0) return;
  const Sizes s(x);
  visit_fast_dtype("softmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.axis == SoftmaxAxis::kChannel) {
      const auto run = [&]<class Access>(const Access& access) {
        launch(channel_kernel<Access, T>, ceil_div(s.pixels * access.lanes_wanted, kBlock), kBlock, access,
               x.ptr<const T>(), y.ptr<T>(), args.logarithm);
      };
      return visit_pixels(s.pixels, x.c(), run, x.ptr<const T>(), y.ptr<const T>());
    }
    const auto results = static_cast<std::size_t>(x.n()) * s.channels;
    const Scratch scratch(2 * results * sizeof(float));
    auto* largest = scratch.as<float>();
    auto* sum = largest + results;
    visit_lanes<T>(
        x.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          reduce_columns(SpatialSums<V, T>{x.ptr<const T>(), largest, sum, s.rows, s.channels}, x.n(), s.rows,
                         x.c() / V);
          const auto vectors = static_cast<unsigned>(x.numel() / V);
          launch(spatial_kernel<V, T>, grid_for(vectors), kBlock, x.ptr<const T>(), largest, sum, y.ptr<T>(), s.rows,
                 s.channels, vectors, args.logarithm);
        },
        x.ptr<const T>(), y.ptr<const T>(), sum);
  });
}

void softmax_backward_cuda(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args) {
  if (y.numel() == 0) return;
  const Sizes s(y);
  visit_fast_dtype("softmax", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.axis == SoftmaxAxis::kChannel) {
      const auto run = [&]<class Access>(const Access& access) {
        launch(channel_backward_kernel<Access, T>, ceil_div(s.pixels * access.lanes_wanted, kBlock), kBlock, access,
               y.ptr<const T>(), gy.ptr<const T>(), gx.ptr<T>(), args.logarithm);
      };
      return visit_pixels(s.pixels, y.c(), run, y.ptr<const T>(), gy.ptr<const T>(), gx.ptr<const T>());
    }
    const Scratch sum(static_cast<std::size_t>(y.n()) * s.channels * sizeof(float));
    visit_lanes<T>(
        y.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          reduce_columns(SpatialDot<V, T>{y.ptr<const T>(), gy.ptr<const T>(), sum.as<float>(), s.rows, s.channels,
                                          args.logarithm},
                         y.n(), s.rows, y.c() / V);
          const auto vectors = static_cast<unsigned>(y.numel() / V);
          launch(spatial_backward_kernel<V, T>, grid_for(vectors), kBlock, y.ptr<const T>(), gy.ptr<const T>(),
                 sum.as<float>(), gx.ptr<T>(), s.rows, s.channels, vectors, args.logarithm);
        },
        y.ptr<const T>(), gy.ptr<const T>(), gx.ptr<const T>());
  });
}

}  // namespace limbeck::ops
