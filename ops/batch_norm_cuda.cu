// Batch norm on the GPU, channels-last, 16 bytes per thread. Statistics are sums of x minus a pivot (the first pixel of
// the channel): the variance is then a difference of small numbers even where the mean is thousands of deviations.
//
// Note [rows of a thread]
//   What a kernel needs to know of a channel is as much as eight vectors of a map. A thread therefore stays with its channels: the
//   threads of the grid are whole rows of vectors, and each steps from row to row by their number (see spread()).
#include <algorithm>

#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
#include "ops/batch_norm_kernels.h"
#include "ops/map_view.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// The threads of a grid, a multiple of the vectors of a pixel, and how many vectors each of them has at most.
struct Spread {
  unsigned threads, vectors;
};

/// The coefficients of V neighbouring channels; those that a kernel does not use are not loaded.
template <int V>
struct Coefficients {
  float center[V], residue[V], inv_std[V], scale[V], shift[V];
  __device__ Coefficients(const float* k, unsigned channels, unsigned c) {
    load<V>(k + kCenter * channels + c, center);
    load<V>(k + kResidue * channels + c, residue);
    load<V>(k + kInvStd * channels + c, inv_std);
    load<V>(k + kScale * channels + c, scale);
    load<V>(k + kShift * channels + c, shift);
  }
};

template <int V, class T>
struct Moments {
  struct Acc {
    float sum[V], squares[V];
  };
  const T* x;
  double* moments;
  unsigned channels, rows;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = a.squares[j] = 0;
  }
  __device__ void add(Acc& a, unsigned, unsigned row, unsigned v) const {
    float pivot[V];
    float value[V];
    load<V>(x + v * V, pivot);
    load<V>(x + static_cast<std::size_t>(row) * channels + v * V, value);
    for (int j = 0; j < V; ++j) {
      const float d = value[j] - pivot[j];
      a.sum[j] += d;
      a.squares[j] += d * d;
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) {
      a.sum[j] += b.sum[j];
      a.squares[j] += b.squares[j];
    }
  }
  __device__ void finish(const Acc& a, unsigned, unsigned v) const {
    float pivot[V];
    load<V>(x + v * V, pivot);
    for (int j = 0; j < V; ++j) {
      const double mean = static_cast<double>(a.sum[j]) / rows;
      const double variance = static_cast<double>(a.squares[j]) / rows - mean * mean;
      moments[v * V + j] = mean + static_cast<double>(pivot[j]);
      moments[channels + v * V + j] = variance < 0 ? 0 : variance;  // NaN stays
    }
  }
};

/// A vector of numbers per channel that need not be dense: parameters and running statistics may be views.
template <class T>
struct PerChannel {
  T* data;
  std::int64_t stride;
  explicit PerChannel(const TensorView& v) : data(v.ptr<T>()), stride(v.defined() ? v.strides[0] : 0) {}
  __device__ T& operator[](unsigned c) const { return data[c * stride]; }
  __device__ bool defined() const { return data != nullptr; }
};

__global__ void running_kernel(const double* moments, double momentum, double unbias, PerChannel<float> mean,
                               PerChannel<float> var, unsigned channels) {
  const unsigned c = blockIdx.x * kBlock + threadIdx.x;
  if (c >= channels) return;
  const auto m = static_cast<double>(mean[c]);
  const auto v = static_cast<double>(var[c]);
  mean[c] = static_cast<float>(m + momentum * (moments[c] - m));
  var[c] = static_cast<float>(v + momentum * (unbias * moments[channels + c] - v));
}

/// M: double for the moments of a batch, float for running statistics.
template <class M>
__global__ void coefficients_kernel(PerChannel<const M> mean, PerChannel<const M> var, PerChannel<const float> gamma,
                                    PerChannel<const float> beta, double eps, float* k, unsigned channels) {
  const unsigned c = blockIdx.x * kBlock + threadIdx.x;
  if (c >= channels) return;
  const auto exact = static_cast<double>(mean[c]);
  const auto center = static_cast<float>(exact);
  const double residue = exact - static_cast<double>(center);
  const double inv_std = 1.0 / ::sqrt(static_cast<double>(var[c]) + eps);
  const double scale = (gamma.defined() ? static_cast<double>(gamma[c]) : 1.0) * inv_std;
  k[kCenter * channels + c] = center;
  k[kResidue * channels + c] = static_cast<float>(residue);
  k[kInvStd * channels + c] = static_cast<float>(inv_std);
  k[kScale * channels + c] = static_cast<float>(scale);
  k[kShift * channels + c] =
      static_cast<float>((beta.defined() ? static_cast<double>(beta[c]) : 0.0) - residue * scale);
}

template <int V, class T>
__global__ void apply_kernel(const T* x, const T* residual, const float* k, Activation act, T* y, unsigned channels,
                             Spread spread, unsigned count) {
  const unsigned begin = first();
  if (begin >= spread.threads) return;
  const Coefficients<V> q(k, channels, begin % (channels / V) * V);
  for (unsigned n = 0; n < spread.vectors; ++n) {
    const unsigned i = begin + n * spread.threads;
    if (i >= count) return;
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float value[V];
    load<V>(x + at, value);
    for (int j = 0; j < V; ++j) value[j] = (value[j] - q.center[j]) * q.scale[j] + q.shift[j];
    if (residual != nullptr) {
      float r[V];
      load<V>(residual + at, r);
      for (int j = 0; j < V; ++j) value[j] += r[j];
    }
    for (int j = 0; j < V; ++j) value[j] = activate(act, value[j]);
    store<V>(y + at, value);
  }
}

/// gy times the slope of the activation, from y where it is defined, else from x.
template <int V, class T>
__device__ inline void masked_gradient(const T* gy, const T* y, const float (&x)[V], const Coefficients<V>& q,
                                       Activation act, std::size_t at, float (&g)[V]) {
  load<V>(gy + at, g);
  if (act == Activation::kNone) return;
  float value[V];
  if (y != nullptr) {
    load<V>(y + at, value);
  } else {
    for (int j = 0; j < V; ++j) value[j] = (x[j] - q.center[j]) * q.scale[j] + q.shift[j];
  }
  for (int j = 0; j < V; ++j) g[j] *= activation_slope(act, value[j]);
}

template <int V, class T>
struct Sums {
  struct Acc {
    float g[V], gx[V];
  };
  const T* gy;
  const T* x;
  const T* y;
  const float* k;
  Activation act;
  T* masked;
  double* sums;
  unsigned channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.g[j] = a.gx[j] = 0;
  }
  __device__ void add(Acc& a, unsigned, unsigned row, unsigned v) const {
    const std::size_t at = static_cast<std::size_t>(row) * channels + v * V;
    const Coefficients<V> q(k, channels, v * V);
    float value[V];
    float g[V];
    load<V>(x + at, value);
    masked_gradient<V>(gy, y, value, q, act, at, g);
    if (masked != nullptr) store<V>(masked + at, g);
    for (int j = 0; j < V; ++j) {
      a.g[j] += g[j];
      a.gx[j] += g[j] * ((value[j] - q.center[j] - q.residue[j]) * q.inv_std[j]);
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) {
      a.g[j] += b.g[j];
      a.gx[j] += b.gx[j];
    }
  }
  __device__ void finish(const Acc& a, unsigned, unsigned v) const {
    for (int j = 0; j < V; ++j) {
      sums[v * V + j] = static_cast<double>(a.g[j]);
      sums[channels + v * V + j] = static_cast<double>(a.gx[j]);
    }
  }
};

/// gx = scale (g - mean(g) - xhat mean(g xhat)), with xhat = (x - center - residue) inv_std; without sums scale g.
template <int V, class T>
__global__ void gradient_kernel(const T* gy, const T* x, const T* y, const float* k, Activation act, const double* sums,
                                double count, T* gx, unsigned channels, Spread spread, unsigned vectors) {
  const unsigned begin = first();
  if (begin >= spread.threads) return;
  const unsigned c = begin % (channels / V) * V;
  const Coefficients<V> q(k, channels, c);
  float of_x[V] = {};  // gx = scale g - of_x (x - center) - constant
  float constant[V] = {};
  if (sums != nullptr) {
    const double inverse = 1.0 / count;
    for (int j = 0; j < V; ++j) {
      const auto mean_g = static_cast<float>(sums[c + j] * inverse);
      const auto mean_gx = static_cast<float>(sums[channels + c + j] * inverse);
      of_x[j] = q.scale[j] * q.inv_std[j] * mean_gx;
      constant[j] = q.scale[j] * mean_g - q.residue[j] * of_x[j];
    }
  }
  for (unsigned n = 0; n < spread.vectors; ++n) {
    const unsigned i = begin + n * spread.threads;
    if (i >= vectors) return;
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float value[V] = {};
    float g[V];
    if (x != nullptr) load<V>(x + at, value);
    masked_gradient<V>(gy, y, value, q, act, at, g);
    for (int j = 0; j < V; ++j) g[j] = q.scale[j] * g[j] - of_x[j] * (value[j] - q.center[j]) - constant[j];
    store<V>(gx + at, g);
  }
}

template <int V, class T>
__global__ void mask_kernel(const T* gy, const T* y, Activation act, T* g, unsigned vectors) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float value[V];
    float slope[V];
    load<V>(gy + at, value);
    load<V>(y + at, slope);
    for (int j = 0; j < V; ++j) value[j] *= activation_slope(act, slope[j]);
    store<V>(g + at, value);
  }
}

/// Vectors of a map; the kernels count them in 32 bits.
unsigned vector_count(const TensorView& x, int lanes) {
  const std::int64_t count = x.numel() / lanes;
  LIMBECK_CHECK(count < (std::int64_t{1} << 32), "batch_norm", "{} elements are more than a kernel counts", x.numel());
  return static_cast<unsigned>(count);
}

/// See Note [rows of a thread]. Eight vectors are enough to hide the coefficients; small maps get more threads instead.
Spread spread(unsigned vectors, unsigned per_pixel) {
  constexpr unsigned kMost = 8;
  const unsigned enough = 1024 * static_cast<unsigned>(properties().multiProcessorCount);
  const unsigned rows = vectors / per_pixel;
  const unsigned each = std::clamp(vectors / enough, 1U, kMost);
  return {ceil_div(rows, each) * per_pixel, each};
}

unsigned channels_of(const TensorView& x) { return static_cast<unsigned>(x.shape[1]); }

}  // namespace

void batch_norm_moments_cuda(const TensorView& x, const TensorView& moments) {
  const unsigned channels = channels_of(x);
  const std::int64_t rows = x.numel() / x.shape[1];
  visit_vectors(
      "batch_norm", x.dtype, x.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        reduce_columns(Moments<V, T>{x.ptr<const T>(), moments.ptr<double>(), channels, static_cast<unsigned>(rows)}, 1,
                       rows, x.shape[1] / V);
      },
      x.data);
}

void batch_norm_running_cuda(const TensorView& moments, double momentum, double unbias, const TensorView& running_mean,
                             const TensorView& running_var) {
  const auto channels = static_cast<unsigned>(moments.shape[1]);
  launch(running_kernel, ceil_div(channels, kBlock), kBlock, moments.ptr<const double>(), momentum, unbias,
         PerChannel<float>(running_mean), PerChannel<float>(running_var), channels);
}

void batch_norm_coefficients_cuda(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                  const TensorView& beta, double eps, const TensorView& k) {
  const auto channels = static_cast<unsigned>(mean.shape[0]);
  const auto run = [&](auto tag) {
    using M = decltype(tag);
    launch(coefficients_kernel<M>, ceil_div(channels, kBlock), kBlock, PerChannel<const M>(mean),
           PerChannel<const M>(var), PerChannel<const float>(gamma), PerChannel<const float>(beta), eps, k.ptr<float>(),
           channels);
  };
  if (mean.dtype == DType::kF64) {
    run(double{});
  } else {
    run(float{});
  }
}

void batch_norm_apply_cuda(const TensorView& x, const TensorView& residual, const TensorView& k, Activation act,
                           const TensorView& y) {
  visit_vectors(
      "batch_norm", x.dtype, x.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const unsigned count = vector_count(x, V);
        const Spread threads = spread(count, channels_of(x) / V);
        launch(apply_kernel<V, T>, ceil_div(threads.threads, kBlock), kBlock, x.ptr<const T>(), residual.ptr<const T>(),
               k.ptr<const float>(), act, y.ptr<T>(), channels_of(x), threads, count);
      },
      x.data, residual.data, k.data, y.data);
}

void batch_norm_sums_cuda(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& k,
                          Activation act, const TensorView& masked, const TensorView& sums) {
  const std::int64_t rows = x.numel() / x.shape[1];
  visit_vectors(
      "batch_norm", x.dtype, x.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        reduce_columns(Sums<V, T>{gy.ptr<const T>(), x.ptr<const T>(), y.ptr<const T>(), k.ptr<const float>(), act,
                                  masked.ptr<T>(), sums.ptr<double>(), channels_of(x)},
                       1, rows, x.shape[1] / V);
      },
      gy.data, x.data, y.data, masked.data, k.data);
}

void batch_norm_gradient_cuda(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& k,
                              Activation act, const TensorView& sums, double count, const TensorView& gx) {
  visit_vectors(
      "batch_norm", gy.dtype, gy.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const unsigned vectors = vector_count(gy, V);
        const Spread threads = spread(vectors, channels_of(gy) / V);
        launch(gradient_kernel<V, T>, ceil_div(threads.threads, kBlock), kBlock, gy.ptr<const T>(), x.ptr<const T>(),
               y.ptr<const T>(), k.ptr<const float>(), act, sums.ptr<const double>(), count, gx.ptr<T>(),
               channels_of(gy), threads, vectors);
      },
      gy.data, x.data, y.data, k.data, gx.data);
}

void batch_norm_mask_cuda(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g) {
  visit_vectors(
      "batch_norm", gy.dtype, gy.numel(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const unsigned vectors = vector_count(gy, V);
        launch(mask_kernel<V, T>, grid_for(vectors), kBlock, gy.ptr<const T>(), y.ptr<const T>(), act, g.ptr<T>(),
               vectors);
      },
      gy.data, y.data, g.data);
}

}  // namespace limbeck::ops
