// Depthwise convolution on the GPU, channels-last: a thread per strip of pixels and 16 bytes of channels. The weights are first
// reordered to [KH][KW][C], so that a thread reads the taps of its channels as vectors too. Both gradients gather: the
// data gradient looks up the outputs that read a pixel, the weight gradient is a reduction over all pixels per tap.
//
// Note [strips]
//   Nine taps of eight channels are 288 bytes of weights for 16 bytes of a map: what a thread reads from the cache decides its speed. A
//   thread therefore computes four neighbours of a row with one reading of the weights, and where stride and dilation are 1 with one
//   reading of the pixels that they share. At stride 1 the data gradient is a forward pass with the kernel turned round.
#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
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
  /// The forward pass that computes the gradient of x at stride 1: from y, with the kernel turned round.
  [[nodiscard]] ConvShape backwards() const {
    ConvShape b = *this;
    std::swap(b.height, b.out_height);
    std::swap(b.width, b.out_width);
    b.padding_h = dilation_h * (kernel_h - 1) - padding_h;
    b.padding_w = dilation_w * (kernel_w - 1) - padding_w;
    return b;
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

/// packed[tap][c] = w[c][tap], or with the taps from last to first.
__global__ void pack_kernel(const float* w, float* packed, unsigned taps, unsigned channels, bool turned) {
  for (unsigned i = first(); i < taps * channels; i += step()) {
    const unsigned tap = i / channels;
    packed[i] = w[i % channels * taps + (turned ? taps - 1 - tap : tap)];
  }
}

/// K: size of the kernel along both axes, so that its loops unroll; 0: any. P: pixels of a strip, with K = 0 only one. kShared:
/// neighbours read the same pixels, because stride and dilation along the row are 1.
template <int V, int K, int P, bool kShared, class T>
__global__ void forward_kernel(ConvShape s, const T* x, const float* w, const float* bias, const T* residual,
                               Activation act, T* y, unsigned items) {
  const int kernel_h = K > 0 ? K : s.kernel_h;
  const int kernel_w = K > 0 ? K : s.kernel_w;
  const unsigned vectors = s.channels / V;
  const unsigned strips = (static_cast<unsigned>(s.out_width) + P - 1) / P;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned strip = i / vectors;
    const auto ow = static_cast<int>(strip % strips) * P;
    const auto oh = static_cast<int>(strip / strips % static_cast<unsigned>(s.out_height));
    const unsigned image = strip / strips / static_cast<unsigned>(s.out_height);
    float sum[P][V] = {};
    if (bias != nullptr) {
      for (int p = 0; p < P; ++p) load<V>(bias + c, sum[p]);
    }
#pragma unroll
    for (int r = 0; r < kernel_h; ++r) {
      const int h = oh * s.stride_h - s.padding_h + r * s.dilation_h;
      if (h < 0 || h >= s.height) continue;
      const float* taps = w + static_cast<unsigned>(r * kernel_w) * s.channels + c;
      if constexpr (kShared) {
        float weight[K][V];
#pragma unroll
        for (int q = 0; q < K; ++q) load<V>(taps + static_cast<unsigned>(q) * s.channels, weight[q]);
#pragma unroll
        for (int k = 0; k < P + K - 1; ++k) {  // the pixels that the strip reads in this row
          const int v = ow - s.padding_w + k;
          if (v < 0 || v >= s.width) continue;
          float value[V];
          load<V>(x + s.input(image, h, v) + c, value);
#pragma unroll
          for (int q = 0; q < K; ++q) {
            if (k - q < 0 || k - q >= P) continue;
            for (int j = 0; j < V; ++j) sum[k - q][j] += value[j] * weight[q][j];
          }
        }
      } else {
#pragma unroll
        for (int q = 0; q < kernel_w; ++q) {
          float weight[V];
          load<V>(taps + static_cast<unsigned>(q) * s.channels, weight);
#pragma unroll
          for (int p = 0; p < P; ++p) {
            const int v = (ow + p) * s.stride_w - s.padding_w + q * s.dilation_w;
            if (v < 0 || v >= s.width) continue;
            float value[V];
            load<V>(x + s.input(image, h, v) + c, value);
            for (int j = 0; j < V; ++j) sum[p][j] += value[j] * weight[j];
          }
        }
      }
    }
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (ow + p >= s.out_width) continue;
      const std::size_t at = s.output(image, oh, ow + p) + c;
      if (residual != nullptr) {
        float add[V];
        load<V>(residual + at, add);
        for (int j = 0; j < V; ++j) sum[p][j] += add[j];
      }
      for (int j = 0; j < V; ++j) sum[p][j] = activate(act, sum[p][j]);
      store<V>(y + at, sum[p]);
    }
  }
}

/// For any stride.
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

/// As load(), and four numbers of bf16: the accumulators of nine taps of eight channels would not fit into a block's shared memory.
template <int V, class T>
__device__ inline void load_some(const T* p, float (&out)[V]) {
  if constexpr (V == 4 && sizeof(T) == 2) {
    const unsigned long long words = *reinterpret_cast<const unsigned long long*>(p);
    unpack(static_cast<unsigned>(words), out[0], out[1]);
    unpack(static_cast<unsigned>(words >> 32U), out[2], out[3]);
  } else {
    load<V>(p, out);
  }
}

/// The rows of the reduction are the output pixels of all images, its stacks are R rows of the kernel each: a thread adds up R x Q
/// taps. Q = 1: a stack is a single tap.
template <int V, int R, int Q, class T>
struct WeightGradient {
  struct alignas(kAlignment<V>) Acc {
    float tap[R * Q][V];
  };
  ConvShape s;
  const T* x;
  const T* gy;
  float* gw;  // [C][KH][KW]

  __device__ void start(Acc& a) const {
    for (int k = 0; k < R * Q; ++k) {
      for (int j = 0; j < V; ++j) a.tap[k][j] = 0;
    }
  }
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned v) const {
    const auto ow = static_cast<int>(row % static_cast<unsigned>(s.out_width));
    const auto oh = static_cast<int>(row / static_cast<unsigned>(s.out_width) % static_cast<unsigned>(s.out_height));
    const unsigned image = row / static_cast<unsigned>(s.out_width) / static_cast<unsigned>(s.out_height);
    const int first_tap = static_cast<int>(stack) * R * Q;
    const int left = ow * s.stride_w - s.padding_w + first_tap % s.kernel_w * s.dilation_w;
    const int above = oh * s.stride_h - s.padding_h + first_tap / s.kernel_w * s.dilation_h;
    float g[V];
    load_some<V>(gy + s.output(image, oh, ow) + v * V, g);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int h = above + r * s.dilation_h;
      if (h < 0 || h >= s.height) continue;
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        const int w = left + q * s.dilation_w;
        if (w < 0 || w >= s.width) continue;
        float value[V];
        load_some<V>(x + s.input(image, h, w) + v * V, value);
        for (int j = 0; j < V; ++j) a.tap[r * Q + q][j] += g[j] * value[j];
      }
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int k = 0; k < R * Q; ++k) {
      for (int j = 0; j < V; ++j) a.tap[k][j] += b.tap[k][j];
    }
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned v) const {
    const auto taps = static_cast<unsigned>(s.kernel_h * s.kernel_w);
    for (int k = 0; k < R * Q; ++k) {
      for (int j = 0; j < V; ++j)
        gw[(v * V + static_cast<unsigned>(j)) * taps + stack * (R * Q) + static_cast<unsigned>(k)] = a.tap[k][j];
    }
  }
};

/// The weights as [KH][KW][C] on the device.
class PackedWeights {
 public:
  explicit PackedWeights(const TensorView& w, bool turned = false)
      : memory_(static_cast<std::size_t>(w.numel()) * sizeof(float)) {
    launch(pack_kernel, grid_for(w.numel()), kBlock, w.ptr<const float>(), memory_.as<float>(), w.h() * w.w(),
           w.shape[0], turned);
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

/// A forward pass over dense maps; see Note [strips].
template <class T>
struct Forward {
  ConvShape s;
  const T* x;
  const float* w;
  const float* bias;
  const T* residual;
  Activation act;
  T* y;
  std::int64_t images;

  template <int V, int K, int P, bool kShared>
  void start() const {
    const std::int64_t strips = (s.out_width + P - 1) / P;
    const std::int64_t items = images * s.out_height * strips * (s.channels / V);
    launch(forward_kernel<V, K, P, kShared, T>, grid_for(items), kBlock, s, x, w, bias, residual, act, y, items);
  }
  template <int V, int K>
  void choose() const {
    if constexpr (V > 1 && K > 0) {
      constexpr int kStrip = 4;
      const std::int64_t enough =
          128 * std::int64_t{properties().multiProcessorCount};  // threads that strips are worth
      const std::int64_t strips = images * s.out_height * (s.out_width / kStrip) * (s.channels / V);
      const bool shared = s.stride_w == 1 && s.dilation_w == 1;
      if (strips >= enough && shared) return start<V, K, kStrip, true>();
      if (strips >= enough) return start<V, K, kStrip, false>();
    }
    start<V, K, 1, false>();
  }
  void run(const TensorView& weights) const {
    visit_lanes<T>(
        s.channels,
        [&](auto lanes) {
          visit_kernel_size(weights, [&](auto size) { choose<decltype(lanes)::value, decltype(size)::value>(); });
        },
        x, residual, y, bias);
  }
};

}  // namespace

void depthwise_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias,
                            const TensorView& residual, Activation act, const Conv2dOptions& options,
                            const TensorView& y) {
  const ConvShape s(x, w, y, options);
  const PackedWeights packed(w);
  visit_fast_dtype("depthwise_conv2d", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    Forward<T>{s,   x.ptr<const T>(), packed.data(), bias.ptr<const float>(), residual.ptr<const T>(),
               act, y.ptr<T>(),       y.n()}
        .run(w);
  });
}

void depthwise_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                  const Conv2dOptions& options, const TensorView& gx) {
  const ConvShape s(gx, w, gy, options);
  const bool turned = s.stride_h == 1 && s.stride_w == 1;
  const PackedWeights packed(w, turned);
  if (turned) {
    visit_fast_dtype("depthwise_conv2d", gy.dtype, [&](auto tag) {
      using T = decltype(tag);
      Forward<T>{s.backwards(), gy.ptr<const T>(), packed.data(), bias.ptr<const float>(),
                 nullptr,       Activation::kNone, gx.ptr<T>(),   gx.n()}
          .run(w);
    });
    return;
  }
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
  visit_vectors(
      "depthwise_conv2d", x.dtype, x.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const auto run = [&]<int W, int R, int Q>() {
          reduce_columns(WeightGradient<W, R, Q, T>{s, x.ptr<const T>(), gy.ptr<const T>(), gw.ptr<float>()},
                         gw.h() * gw.w() / (R * Q), pixels, x.c() / W);
        };
        constexpr int kFew = V < 4 ? V : 4;
        if (gw.h() == 3 && gw.w() == 3) return run.template operator()<kFew, 3, 3>();
        if (gw.w() == 3) return run.template operator()<V, 1, 3>();
        if (gw.w() == 5) return run.template operator()<V, 1, 5>();
        run.template operator()<V, 1, 1>();
      },
      x.data, gy.data);
}

}  // namespace limbeck::ops
