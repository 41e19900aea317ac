// Depthwise convolution on the GPU, channels-last: a thread per pixel and 16 bytes of channels. The weights are first
// reordered to [KH][KW][C], so that a thread reads the taps of its channels as vectors too. Both gradients gather: the
// data gradient looks up the outputs that read a pixel, the weight gradient is a reduction over all pixels per tap.
#include "core/cuda/columns.cuh"
#include "ops/depthwise_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

struct ConvShape {
  int height, width, out_height, out_width;  // of x, of y
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  unsigned channels;

  ConvShape(const TensorView& x, const TensorView& w, const TensorView& y, const Conv2dOptions& o)
      : height(static_cast<int>(x.h())),
        width(static_cast<int>(x.w())),
        out_height(static_cast<int>(y.h())),
        out_width(static_cast<int>(y.w())),
        kernel_h(static_cast<int>(w.h())),
        kernel_w(static_cast<int>(w.w())),
        stride_h(static_cast<int>(o.stride[0])),
        stride_w(static_cast<int>(o.stride[1])),
        padding_h(static_cast<int>(o.padding[0])),
        padding_w(static_cast<int>(o.padding[1])),
        dilation_h(static_cast<int>(o.dilation[0])),
        dilation_w(static_cast<int>(o.dilation[1])),
        channels(static_cast<unsigned>(x.c())) {
    LIMBECK_CHECK(x.numel() < (std::int64_t{1} << 31) && y.numel() < (std::int64_t{1} << 31), "depthwise_conv2d",
                  "maps of shapes {} and {} have too many elements", x.shape, y.shape);
  }
  __device__ std::size_t input(unsigned image, int h, int w) const {
    return ((static_cast<std::size_t>(image) * static_cast<unsigned>(height) + static_cast<unsigned>(h)) *
                static_cast<unsigned>(width) +
            static_cast<unsigned>(w)) *
           channels;
  }
  __device__ std::size_t output(unsigned image, int h, int w) const {
    return ((static_cast<std::size_t>(image) * static_cast<unsigned>(out_height) + static_cast<unsigned>(h)) *
                static_cast<unsigned>(out_width) +
            static_cast<unsigned>(w)) *
           channels;
  }
};

/// packed[tap][c] = w[c][tap]
__global__ void pack_kernel(const float* w, float* packed, unsigned taps, unsigned channels) {
  for (unsigned i = first(); i < taps * channels; i += step()) packed[i] = w[i % channels * taps + i / channels];
}

/// K: size of the kernel along both axes, so that its loops unroll; 0: any.
template <int V, int K, class T>
__global__ void forward_kernel(ConvShape s, const T* x, const float* w, const float* bias, const T* residual,
                               Activation act, T* y, unsigned items) {
  const int kernel_h = K > 0 ? K : s.kernel_h;
  const int kernel_w = K > 0 ? K : s.kernel_w;
  const unsigned vectors = s.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned pixel = i / vectors;
    const auto ow = static_cast<int>(pixel % static_cast<unsigned>(s.out_width));
    const auto oh = static_cast<int>(pixel / static_cast<unsigned>(s.out_width) % static_cast<unsigned>(s.out_height));
    const unsigned image = pixel / static_cast<unsigned>(s.out_width) / static_cast<unsigned>(s.out_height);
    float sum[V] = {};
    if (bias != nullptr) load<V>(bias + c, sum);
#pragma unroll
    for (int r = 0; r < kernel_h; ++r) {
      const int h = oh * s.stride_h - s.padding_h + r * s.dilation_h;
      if (h < 0 || h >= s.height) continue;
#pragma unroll
      for (int q = 0; q < kernel_w; ++q) {
        const int v = ow * s.stride_w - s.padding_w + q * s.dilation_w;
        if (v < 0 || v >= s.width) continue;
        float value[V];
        float weight[V];
        load<V>(x + s.input(image, h, v) + c, value);
        load<V>(w + static_cast<unsigned>(r * kernel_w + q) * s.channels + c, weight);
        for (int j = 0; j < V; ++j) sum[j] += value[j] * weight[j];
      }
    }
    const std::size_t at = s.output(image, oh, ow) + c;
    if (residual != nullptr) {
      float add[V];
      load<V>(residual + at, add);
      for (int j = 0; j < V; ++j) sum[j] += add[j];
    }
    for (int j = 0; j < V; ++j) sum[j] = activate(act, sum[j]);
    store<V>(y + at, sum);
  }
}

template <int V, int K, class T>
__global__ void backward_data_kernel(ConvShape s, const T* gy, const float* w, const float* bias, T* gx,
                                     unsigned items) {
  const int kernel_h = K > 0 ? K : s.kernel_h;
  const int kernel_w = K > 0 ? K : s.kernel_w;
  const unsigned vectors = s.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned pixel = i / vectors;
    const auto v = static_cast<int>(pixel % static_cast<unsigned>(s.width));
    const auto h = static_cast<int>(pixel / static_cast<unsigned>(s.width) % static_cast<unsigned>(s.height));
    const unsigned image = pixel / static_cast<unsigned>(s.width) / static_cast<unsigned>(s.height);
    float sum[V] = {};
    if (bias != nullptr) load<V>(bias + c, sum);
#pragma unroll
    for (int r = 0; r < kernel_h; ++r) {
      const int above = h + s.padding_h - r * s.dilation_h;  // stride times the row that reads h with tap r
      if (above < 0 || above % s.stride_h != 0 || above / s.stride_h >= s.out_height) continue;
#pragma unroll
      for (int q = 0; q < kernel_w; ++q) {
        const int left = v + s.padding_w - q * s.dilation_w;
        if (left < 0 || left % s.stride_w != 0 || left / s.stride_w >= s.out_width) continue;
        float g[V];
        float weight[V];
        load<V>(gy + s.output(image, above / s.stride_h, left / s.stride_w) + c, g);
        load<V>(w + static_cast<unsigned>(r * kernel_w + q) * s.channels + c, weight);
        for (int j = 0; j < V; ++j) sum[j] += g[j] * weight[j];
      }
    }
    store<V>(gx + s.input(image, h, v) + c, sum);
  }
}

/// The rows of the reduction are the output pixels of all images, its stacks the rows of the kernel: a thread adds up one
/// row of R taps. R = 1: a stack is a single tap.
template <int V, int R, class T>
struct WeightGradient {
  struct Acc {
    float tap[R][V];
  };
  ConvShape s;
  const T* x;
  const T* gy;
  float* gw;  // [C][KH][KW]

  __device__ void start(Acc& a) const {
    for (int q = 0; q < R; ++q) {
      for (int j = 0; j < V; ++j) a.tap[q][j] = 0;
    }
  }
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned v) const {
    const auto ow = static_cast<int>(row % static_cast<unsigned>(s.out_width));
    const auto oh = static_cast<int>(row / static_cast<unsigned>(s.out_width) % static_cast<unsigned>(s.out_height));
    const unsigned image = row / static_cast<unsigned>(s.out_width) / static_cast<unsigned>(s.out_height);
    const int first_tap = static_cast<int>(stack) * R;
    const int h = oh * s.stride_h - s.padding_h + first_tap / s.kernel_w * s.dilation_h;
    if (h < 0 || h >= s.height) return;
    float g[V];
    load<V>(gy + s.output(image, oh, ow) + v * V, g);
#pragma unroll
    for (int q = 0; q < R; ++q) {
      const int w = ow * s.stride_w - s.padding_w + (first_tap % s.kernel_w + q) * s.dilation_w;
      if (w < 0 || w >= s.width) continue;
      float value[V];
      load<V>(x + s.input(image, h, w) + v * V, value);
      for (int j = 0; j < V; ++j) a.tap[q][j] += g[j] * value[j];
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int q = 0; q < R; ++q) {
      for (int j = 0; j < V; ++j) a.tap[q][j] += b.tap[q][j];
    }
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned v) const {
    const auto taps = static_cast<unsigned>(s.kernel_h * s.kernel_w);
    for (int q = 0; q < R; ++q) {
      for (int j = 0; j < V; ++j)
        gw[(v * V + static_cast<unsigned>(j)) * taps + stack * R + static_cast<unsigned>(q)] = a.tap[q][j];
    }
  }
};

/// The weights as [KH][KW][C] on the device.
class PackedWeights {
 public:
  explicit PackedWeights(const TensorView& w) : memory_(static_cast<std::size_t>(w.numel()) * sizeof(float)) {
    launch(pack_kernel, grid_for(w.numel()), kBlock, w.ptr<const float>(), memory_.as<float>(), w.h() * w.w(),
           w.shape[0]);
  }
  [[nodiscard]] const float* data() const { return memory_.as<const float>(); }

 private:
  Scratch memory_;
};

/// Calls f(integral_constant<int, K>) with the size of a square kernel of 3 or 5, or 0.
template <class F>
void visit_kernel_size(const TensorView& w, F&& f) {
  if (w.h() == 3 && w.w() == 3) return f(std::integral_constant<int, 3>{});
  if (w.h() == 5 && w.w() == 5) return f(std::integral_constant<int, 5>{});
  f(std::integral_constant<int, 0>{});
}

}  // namespace

void depthwise_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias,
                            const TensorView& residual, Activation act, const Conv2dOptions& options,
                            const TensorView& y) {
  const ConvShape s(x, w, y, options);
  const PackedWeights packed(w);
  visit_fast_dtype("depthwise_conv2d", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        x.c(),
        [&](auto lanes) {
          visit_kernel_size(w, [&](auto size) {
            constexpr int V = decltype(lanes)::value;
            constexpr int K = decltype(size)::value;
            const auto items = static_cast<unsigned>(y.numel() / V);
            launch(forward_kernel<V, K, T>, grid_for(items), kBlock, s, x.ptr<const T>(), packed.data(),
                   bias.ptr<const float>(), residual.ptr<const T>(), act, y.ptr<T>(), items);
          });
        },
        x.ptr<const T>(), residual.ptr<const T>(), y.ptr<const T>(), bias.ptr<const float>());
  });
}

void depthwise_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                  const Conv2dOptions& options, const TensorView& gx) {
  const ConvShape s(gx, w, gy, options);
  const PackedWeights packed(w);
  visit_fast_dtype("depthwise_conv2d", gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        gx.c(),
        [&](auto lanes) {
          visit_kernel_size(w, [&](auto size) {
            constexpr int V = decltype(lanes)::value;
            constexpr int K = decltype(size)::value;
            const auto items = static_cast<unsigned>(gx.numel() / V);
            launch(backward_data_kernel<V, K, T>, grid_for(items), kBlock, s, gy.ptr<const T>(), packed.data(),
                   bias.ptr<const float>(), gx.ptr<T>(), items);
          });
        },
        gy.ptr<const T>(), gx.ptr<const T>(), bias.ptr<const float>());
  });
}

void depthwise_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                     const TensorView& gw) {
  const ConvShape s(x, gw, gy, options);
  const std::int64_t pixels = gy.n() * gy.h() * gy.w();
  visit_fast_dtype("depthwise_conv2d", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        x.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const auto run = [&](auto row) {
            constexpr int R = decltype(row)::value;
            reduce_columns(WeightGradient<V, R, T>{s, x.ptr<const T>(), gy.ptr<const T>(), gw.ptr<float>()},
                           gw.h() * gw.w() / R, pixels, x.c() / V);
          };
          if (gw.w() == 3) return run(std::integral_constant<int, 3>{});
          if (gw.w() == 5) return run(std::integral_constant<int, 5>{});
          run(std::integral_constant<int, 1>{});
        },
        x.ptr<const T>(), gy.ptr<const T>());
  });
}

}  // namespace limbeck::ops
