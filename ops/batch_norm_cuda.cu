// Batch norm on the GPU, channels-last, 16 bytes per thread. Statistics are sums of x minus a pivot (the first pixel of
// the channel): the variance is then a difference of small numbers even where the mean is thousands of deviations.
//
// Note [rows of a thread]
//   What a kernel needs to know of a channel is as much as eight vectors of a map. A thread therefore stays with its channels: the
//   threads of the grid are whole rows of vectors, and each steps from row to row by their number (see spread()).
//   Where the slope of the activation comes from is known to the compiler, so that a thread keeps no more than it uses, and the
//   loads of several rows are under way at once.
#include <algorithm>

#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
#include "ops/batch_norm_kernels.h"
#include "ops/map_view.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// What the slope of the activation is computed from.
enum class SlopeOf { kNothing, kInput, kOutput };

/// Calls f(std::integral_constant<SlopeOf, S>).
template <class F>
void visit_slope(Activation act, bool of_output, F&& f) {
  if (act == Activation::kNone) return f(std::integral_constant<SlopeOf, SlopeOf::kNothing>{});
  if (of_output) return f(std::integral_constant<SlopeOf, SlopeOf::kOutput>{});
  f(std::integral_constant<SlopeOf, SlopeOf::kInput>{});
}

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
  struct alignas(kAlignment<V>) Acc {
    float sum[V], squares[V];
  };
  struct Column {
    float pivot[V];
  };
  static constexpr int kRows = 4;
  const T* x;
  double* moments;
  double share;  // 1 / rows
  unsigned channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = a.squares[j] = 0;
  }
  __device__ Column column(unsigned v) const {
    Column k;
    load<V>(x + v * V, k.pivot);
    return k;
  }
  __device__ void add(Acc& a, const Column& k, unsigned, unsigned row, unsigned v) const {
    float value[V];
    load<V>(x + static_cast<std::size_t>(row) * channels + v * V, value);
    for (int j = 0; j < V; ++j) {
      const float d = value[j] - k.pivot[j];
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
    const Column k = column(v);
    for (int j = 0; j < V; ++j) {
      const double mean = static_cast<double>(a.sum[j]) * share;
      const double variance = static_cast<double>(a.squares[j]) * share - mean * mean;
      moments[v * V + j] = mean + static_cast<double>(k.pivot[j]);
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

/// Parameters of the channels, and where their coefficients go.
struct Affine {
  PerChannel<const float> gamma, beta;
  double eps;
  float* k;
  unsigned channels;

  __device__ void set(unsigned c, double mean, double var) const {
    const auto center = static_cast<float>(mean);
    const double residue = mean - static_cast<double>(center);
    const double inv_std = 1.0 / ::sqrt(var + eps);
    const double scale = (gamma.defined() ? static_cast<double>(gamma[c]) : 1.0) * inv_std;
    k[kCenter * channels + c] = center;
    k[kResidue * channels + c] = static_cast<float>(residue);
    k[kInvStd * channels + c] = static_cast<float>(inv_std);
    k[kScale * channels + c] = static_cast<float>(scale);
    k[kShift * channels + c] =
        static_cast<float>((beta.defined() ? static_cast<double>(beta[c]) : 0.0) - residue * scale);
  }
};

__global__ void statistics_kernel(const double* moments, double momentum, double unbias, PerChannel<float> mean,
                                  PerChannel<float> var, Affine affine) {
  const unsigned c = blockIdx.x * kBlock + threadIdx.x;
  if (c >= affine.channels) return;
  const double batch_mean = moments[c];
  const double batch_var = moments[affine.channels + c];
  if (mean.defined()) {
    const auto m = static_cast<double>(mean[c]);
    const auto v = static_cast<double>(var[c]);
    mean[c] = static_cast<float>(m + momentum * (batch_mean - m));
    var[c] = static_cast<float>(v + momentum * (unbias * batch_var - v));
  }
  affine.set(c, batch_mean, batch_var);
}

__global__ void coefficients_kernel(PerChannel<const float> mean, PerChannel<const float> var, Affine affine) {
  const unsigned c = blockIdx.x * kBlock + threadIdx.x;
  if (c >= affine.channels) return;
  affine.set(c, static_cast<double>(mean[c]), static_cast<double>(var[c]));
}

/// `threads`: of the grid, a multiple of the vectors of a pixel. `residual` is read with kResidual.
template <bool kResidual, int V, class T>
__global__ void apply_kernel(const T* __restrict__ x, const T* __restrict__ residual, const float* k, Activation act,
                             T* __restrict__ y, unsigned channels, unsigned threads, unsigned count) {
  const unsigned begin = first();
  if (begin >= threads) return;
  const Coefficients<V> q(k, channels, begin % (channels / V) * V);
#pragma unroll 4
  for (unsigned i = begin; i < count; i += threads) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float value[V];
    load<V>(x + at, value);
    for (int j = 0; j < V; ++j) value[j] = (value[j] - q.center[j]) * q.scale[j] + q.shift[j];
    if constexpr (kResidual) {
      float r[V];
      load<V>(residual + at, r);
      for (int j = 0; j < V; ++j) value[j] += r[j];
    }
    for (int j = 0; j < V; ++j) value[j] = activate(act, value[j]);
    store<V>(y + at, value);
  }
}

/// g = gy times the slope of the activation.
template <SlopeOf kSlope, int V, class T>
__device__ inline void load_gradient(const T* gy, const T* y, const float (&x)[V], const Coefficients<V>& q,
                                     Activation act, std::size_t at, float (&g)[V]) {
  load<V>(gy + at, g);
  if constexpr (kSlope == SlopeOf::kNothing) return;
  float value[V];
  if constexpr (kSlope == SlopeOf::kOutput) {
    load<V>(y + at, value);
  } else {
    for (int j = 0; j < V; ++j) value[j] = (x[j] - q.center[j]) * q.scale[j] + q.shift[j];
  }
  for (int j = 0; j < V; ++j) g[j] *= activation_slope(act, value[j]);
}

/// The sums of g and g xhat. Along the rows it is g (x - center) that is added up.
template <SlopeOf kSlope, int V, class T>
struct Sums {
  struct alignas(kAlignment<V>) Acc {
    float g[V], gx[V];
  };
  using Column = Coefficients<V>;
  static constexpr int kRows = 2;
  const T* gy;
  const T* x;
  const T* y;
  const float* k;
  Activation act;
  T* masked;  // null, or with the slope of the output
  double* sums;
  float* gbeta;   // may be null
  float* ggamma;  // may be null
  unsigned channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.g[j] = a.gx[j] = 0;
  }
  __device__ Column column(unsigned v) const { return Column(k, channels, v * V); }
  __device__ void add(Acc& a, const Column& q, unsigned, unsigned row, unsigned v) const {
    const std::size_t at = static_cast<std::size_t>(row) * channels + v * V;
    float value[V];
    float g[V];
    load<V>(x + at, value);
    load_gradient<kSlope, V>(gy, y, value, q, act, at, g);
    if constexpr (kSlope == SlopeOf::kOutput) {
      if (masked != nullptr) store<V>(masked + at, g);
    }
    for (int j = 0; j < V; ++j) {
      a.g[j] += g[j];
      a.gx[j] += g[j] * (value[j] - q.center[j]);
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) {
      a.g[j] += b.g[j];
      a.gx[j] += b.gx[j];
    }
  }
  __device__ void finish(const Acc& a, unsigned, unsigned v) const {
    const Column q = column(v);
    for (int j = 0; j < V; ++j) {
      const unsigned c = v * V + static_cast<unsigned>(j);
      const auto sum = static_cast<double>(a.g[j]);
      const double along =
          (static_cast<double>(a.gx[j]) - static_cast<double>(q.residue[j]) * sum) * static_cast<double>(q.inv_std[j]);
      sums[c] = sum;
      sums[channels + c] = along;
      if (gbeta != nullptr) gbeta[c] = static_cast<float>(sum);
      if (ggamma != nullptr) ggamma[c] = static_cast<float>(along);
    }
  }
};

/// gx = scale (g - mean(g) - xhat mean(g xhat)), with xhat = (x - center - residue) inv_std; without sums scale g.
/// `share`: 1 / the numbers of a channel. `threads`: as in apply_kernel().
template <SlopeOf kSlope, int V, class T>
__global__ void gradient_kernel(const T* __restrict__ gy, const T* __restrict__ x, const T* __restrict__ y,
                                const float* k, Activation act, const double* sums, double share, T* __restrict__ gx,
                                unsigned channels, unsigned threads, unsigned vectors) {
  const unsigned begin = first();
  if (begin >= threads) return;
  const unsigned c = begin % (channels / V) * V;
  const Coefficients<V> q(k, channels, c);
  float of_x[V] = {};  // gx = scale g - of_x (x - center) - constant
  float constant[V] = {};
  if (sums != nullptr) {
    for (int j = 0; j < V; ++j) {
      const auto mean_g = static_cast<float>(sums[c + j] * share);
      const auto mean_gx = static_cast<float>(sums[channels + c + j] * share);
      of_x[j] = q.scale[j] * q.inv_std[j] * mean_gx;
      constant[j] = q.scale[j] * mean_g - q.residue[j] * of_x[j];
    }
  }
#pragma unroll 2
  for (unsigned i = begin; i < vectors; i += threads) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float value[V] = {};
    float g[V];
    if (x != nullptr) load<V>(x + at, value);
    load_gradient<kSlope, V>(gy, y, value, q, act, at, g);
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

/// Vectors of a map; the kernels count them, and as many again, in 32 bits.
unsigned vector_count(const TensorView& x, int lanes) {
  const std::int64_t count = x.numel() / lanes;
  LIMBECK_CHECK(count < (std::int64_t{1} << 31), "batch_norm", "{} elements are more than a kernel counts", x.numel());
  return static_cast<unsigned>(count);
}

/// The threads of a grid; see Note [rows of a thread]. Eight vectors each are enough to hide the coefficients; small maps get more
/// threads instead.
unsigned spread(unsigned vectors, unsigned per_pixel) {
  constexpr unsigned kMost = 8;
  const unsigned enough = 1024 * static_cast<unsigned>(properties().multiProcessorCount);
  const unsigned rows = vectors / per_pixel;
  const unsigned each = std::clamp(vectors / enough, 1U, kMost);
  return ceil_div(rows, each) * per_pixel;
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
        reduce_columns(
            Moments<V, T>{x.ptr<const T>(), moments.ptr<double>(), 1.0 / static_cast<double>(rows), channels}, 1, rows,
            x.shape[1] / V);
      },
      x.data);
}

void batch_norm_statistics_cuda(const TensorView& moments, const BatchNormRunning& running, const TensorView& gamma,
                                const TensorView& beta, double eps, const TensorView& k) {
  const auto channels = static_cast<unsigned>(moments.shape[1]);
  const Affine affine{PerChannel<const float>(gamma), PerChannel<const float>(beta), eps, k.ptr<float>(), channels};
  launch(statistics_kernel, ceil_div(channels, kBlock), kBlock, moments.ptr<const double>(), running.momentum,
         running.unbias, PerChannel<float>(running.mean), PerChannel<float>(running.var), affine);
}

void batch_norm_coefficients_cuda(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                  const TensorView& beta, double eps, const TensorView& k) {
  const auto channels = static_cast<unsigned>(mean.shape[0]);
  const Affine affine{PerChannel<const float>(gamma), PerChannel<const float>(beta), eps, k.ptr<float>(), channels};
  launch(coefficients_kernel, ceil_div(channels, kBlock), kBlock, PerChannel<const float>(mean),
         PerChannel<const float>(var), affine);
}

void batch_norm_apply_cuda(const TensorView& x, const TensorView& residual, const TensorView& k, Activation act,
                           const TensorView& y) {
  visit_vectors(
      "batch_norm", x.dtype, x.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const unsigned count = vector_count(x, V);
        const unsigned threads = spread(count, channels_of(x) / V);
        const auto kernel = residual.defined() ? apply_kernel<true, V, T> : apply_kernel<false, V, T>;
        launch(kernel, ceil_div(threads, kBlock), kBlock, x.ptr<const T>(), residual.ptr<const T>(),
               k.ptr<const float>(), act, y.ptr<T>(), channels_of(x), threads, count);
      },
      x.data, residual.data, k.data, y.data);
}

void batch_norm_sums_cuda(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& k,
                          Activation act, const TensorView& masked, const TensorView& sums, const TensorView& gbeta,
                          const TensorView& ggamma) {
  LIMBECK_CHECK(!masked.defined() || y.defined(), "batch_norm", "internal: the masked gradient needs the output");
  const std::int64_t rows = x.numel() / x.shape[1];
  visit_vectors(
      "batch_norm", x.dtype, x.shape[1],
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        visit_slope(act, y.defined(), [&](auto slope) {
          const Sums<decltype(slope)::value, V, T> f{
              gy.ptr<const T>(), x.ptr<const T>(),   y.ptr<const T>(),   k.ptr<const float>(), act,
              masked.ptr<T>(),   sums.ptr<double>(), gbeta.ptr<float>(), ggamma.ptr<float>(),  channels_of(x)};
          reduce_columns(f, 1, rows, x.shape[1] / V);
        });
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
        const unsigned threads = spread(vectors, channels_of(gy) / V);
        visit_slope(act, y.defined(), [&](auto slope) {
          launch(gradient_kernel<decltype(slope)::value, V, T>, ceil_div(threads, kBlock), kBlock, gy.ptr<const T>(),
                 x.ptr<const T>(), y.ptr<const T>(), k.ptr<const float>(), act, sums.ptr<const double>(), 1.0 / count,
                 gx.ptr<T>(), channels_of(gy), threads, vectors);
        });
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
