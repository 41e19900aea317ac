// The own kernel of the dense convolution: the bias gradient. The convolutions themselves are cuDNN's (conv2d_cudnn.cpp).
#include "core/cuda/columns.cuh"
#include "ops/conv2d_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

template <int V, class T>
struct ChannelSum {
  struct alignas(kAlignment<V>) Acc {
    float sum[V];
  };
  const T* gy;
  float* gbias;
  unsigned channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.sum[j] = 0;
  }
  __device__ void add(Acc& a, unsigned, unsigned row, unsigned v) const {
    float value[V];
    load<V>(gy + static_cast<std::size_t>(row) * channels + v * V, value);
    for (int j = 0; j < V; ++j) a.sum[j] += value[j];
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) a.sum[j] += b.sum[j];
  }
  __device__ void finish(const Acc& a, unsigned, unsigned v) const { store<V>(gbias + v * V, a.sum); }
};

}  // namespace

void channel_sum_cuda(const TensorView& gy, const TensorView& gbias) {
  visit_fast_dtype("conv2d", gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        gy.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          reduce_columns(ChannelSum<V, T>{gy.ptr<const T>(), gbias.ptr<float>(), static_cast<unsigned>(gy.c())}, 1,
                         gy.n() * gy.h() * gy.w(), gy.c() / V);
        },
        gy.ptr<const T>(), gbias.ptr<const float>());
  });
}

}  // namespace limbeck::ops
