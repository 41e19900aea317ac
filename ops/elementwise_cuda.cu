// Elementwise kernels of the GPU. One kernel, map_kernel(), applies a functor to the elements of views with any strides;
// where all operands are consecutive, or repeat along the innermost loop, a thread handles 16 bytes.
#include "core/cuda/kernel.cuh"
#include "core/cuda/nest.h"
#include "ops/elementwise_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// Callable from constexpr functors, which count as host functions too.
struct DeviceMath {
  __host__ __device__ static float exp(float x) { return expf(x); }
  __host__ __device__ static float log(float x) { return logf(x); }
  __host__ __device__ static float sqrt(float x) { return sqrtf(x); }
  __host__ __device__ static float tanh(float x) { return tanhf(x); }
  __host__ __device__ static float pow(float x, float a) { return powf(x, a); }
};

template <class T, int K>
struct Inputs {
  const T* data[K];
};

/// out = f(inputs); view 0 of the nest is the output. The output may be one of the inputs.
template <int V, class T, int K, class F>
__global__ void map_kernel(F f, Nest<K + 1> nest, T* out, Inputs<T, K> in) {
  for (unsigned i = first(); i < nest.total; i += step()) {
    std::int64_t at[K + 1] = {};
    unsigned rest = i;
    for (int l = 0; l < nest.count; ++l) {
      const bool last = l + 1 == nest.count;
      const unsigned k = last ? rest : rest % nest.size[l];
      rest = last ? 0 : rest / nest.size[l];
      const auto steps = static_cast<std::int64_t>(l == 0 ? k * V : k);
#pragma unroll
      for (int v = 0; v <= K; ++v) at[v] += steps * nest.stride[v][l];
    }
    float x[K][V];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const T* p = in.data[k] + at[k + 1];
      if (V == 1 || nest.stride[k + 1][0] == 1) {
        load<V>(p, x[k]);
      } else {
        const float repeated = to_float(*p);
        for (int j = 0; j < V; ++j) x[k][j] = repeated;
      }
    }
    float y[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      float arguments[K];
      for (int k = 0; k < K; ++k) arguments[k] = x[k][j];
      y[j] = f(arguments);
    }
    store<V>(out + at[0], y);
  }
}

template <class T, class F, class... Views>
void map(const F& f, const TensorView& out, const Views&... inputs) {
  if (out.numel() == 0) return;
  constexpr int K = sizeof...(Views);
  int lanes = kLanes<T>;
  const auto nest = make_nest<K + 1>({&out, &inputs...}, lanes);
  const Inputs<T, K> in{{inputs.template ptr<const T>()...}};
  if (lanes > 1) {
    launch(map_kernel<kLanes<T>, T, K, F>, grid_for(nest.total), kBlock, f, nest, out.ptr<T>(), in);
  } else {
    launch(map_kernel<1, T, K, F>, grid_for(nest.total), kBlock, f, nest, out.ptr<T>(), in);
  }
}

template <class Op>
struct Value {
  float a, b;
  __device__ float operator()(const float* x) const { return Op::template value<DeviceMath, float>(x[0], a, b); }
};
template <class Op>
struct Slope {
  float a, b;
  __device__ float operator()(const float* x) const { return x[1] * Op::template slope<DeviceMath, float>(x[0], a, b); }
};
template <class Op>
struct BinaryValue {
  __device__ float operator()(const float* x) const { return Op::value(x[0], x[1]); }
};
template <class Op>
struct GradA {
  __device__ float operator()(const float* x) const { return Op::grad_a(x[0], x[1], x[2]); }
};
template <class Op>
struct GradB {
  __device__ float operator()(const float* x) const { return Op::grad_b(x[0], x[1], x[2]); }
};
struct AddScaled {
  float alpha;
  __device__ float operator()(const float* x) const { return x[1] + alpha * x[0]; }
};

struct Scale {
  const float* factor;
  __device__ float operator()(const float* x) const { return *factor * x[0]; }
};

/// A factor of 1 changes nothing, and reads nothing.
template <int V, class T>
__global__ void scale_in_place_kernel(T* x, const float* factor, unsigned vectors) {
  const float f = *factor;
  if (f == 1.0F) return;
  for (unsigned i = first(); i < vectors; i += step()) {
    float v[V];
    load<V>(x + static_cast<std::size_t>(i) * V, v);
    for (int j = 0; j < V; ++j) v[j] *= f;
    store<V>(x + static_cast<std::size_t>(i) * V, v);
  }
}

/// Of dense memory.
template <class T>
void scale_in_place(const TensorView& x, const TensorView& factor) {
  visit_lanes<T>(
      x.numel(),
      [&](auto lanes) {
        constexpr int V = decltype(lanes)::value;
        const std::int64_t vectors = x.numel() / V;
        LIMBECK_CHECK(vectors < (std::int64_t{1} << 32), "scale", "{} elements are more than a kernel counts",
                      x.numel());
        launch(scale_in_place_kernel<V, T>, grid_for(vectors), kBlock, x.ptr<T>(), factor.ptr<const float>(), vectors);
      },
      x.ptr<T>());
}

}  // namespace

template <class Op>
void unary_cuda(const TensorView& x, const TensorView& y, const UnaryArgs& args) {
  visit_fast_dtype(Op::name, x.dtype, [&](auto tag) {
    map<decltype(tag)>(Value<Op>{static_cast<float>(args.a), static_cast<float>(args.b)}, y, x);
  });
}

template <class Op>
void unary_backward_cuda(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args) {
  visit_fast_dtype(Op::name, gy.dtype, [&](auto tag) {
    map<decltype(tag)>(Slope<Op>{static_cast<float>(args.a), static_cast<float>(args.b)}, gx, saved, gy);
  });
}

template <class Op>
void binary_cuda(const TensorView& a, const TensorView& b, const TensorView& y) {
  visit_fast_dtype(Op::name, y.dtype, [&](auto tag) { map<decltype(tag)>(BinaryValue<Op>{}, y, a, b); });
}

template <class Op>
void binary_backward_cuda(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g,
                          int side) {
  visit_fast_dtype(Op::name, gy.dtype, [&](auto tag) {
    if (side == 0) {
      map<decltype(tag)>(GradA<Op>{}, g, gy, a, b);
    } else {
      map<decltype(tag)>(GradB<Op>{}, g, gy, a, b);
    }
  });
}

void add_in_place_cuda(const TensorView& x, const TensorView& y, double alpha) {
  visit_fast_dtype("add_", y.dtype,
                   [&](auto tag) { map<decltype(tag)>(AddScaled{static_cast<float>(alpha)}, y, x, y); });
}

void scale_cuda(const TensorView& x, const TensorView& factor, const TensorView& y) {
  const bool in_place = x.data == y.data && x.strides == y.strides && y.strides == default_strides(y.shape);
  visit_fast_dtype("scale", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (in_place && y.numel() > 0) return scale_in_place<T>(y, factor);
    map<T>(Scale{factor.ptr<const float>()}, y, x);
  });
}

#define LIMBECK_INSTANTIATE(Op)                                                         \
  template void unary_cuda<Op>(const TensorView&, const TensorView&, const UnaryArgs&); \
  template void unary_backward_cuda<Op>(const TensorView&, const TensorView&, const TensorView&, const UnaryArgs&);
LIMBECK_UNARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

#define LIMBECK_INSTANTIATE(Op)                                                                                      \
  template void binary_cuda<Op>(const TensorView&, const TensorView&, const TensorView&);                            \
  template void binary_backward_cuda<Op>(const TensorView&, const TensorView&, const TensorView&, const TensorView&, \
                                         int);
LIMBECK_BINARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

}  // namespace limbeck::ops
