// Dropout on the GPU: the mask is Note [dropout masks], so it has the same zeros as on the CPU.
#include "core/cuda/kernel.cuh"
#include "core/cuda/philox.cuh"
#include "ops/dropout_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

struct Mask {
  RandomWords words;
  unsigned threshold;
  float scale;
  unsigned channels, area;  // of a map; area 0: the memory order is the logical one
  bool whole_channels;

  /// Factor of the element at place `i` of memory.
  __device__ float factor(unsigned i) const {
    unsigned long long logical = i;
    if (area != 0) {
      const unsigned c = i % channels;
      const unsigned pixel = i / channels;
      const unsigned image = pixel / area;
      logical = static_cast<unsigned long long>(image) * channels + c;
      if (!whole_channels) logical = logical * area + pixel % area;
    }
    return words.at(logical) >> 8U >= threshold ? scale : 0.0F;
  }
};

template <int V, class T>
__global__ void dropout_kernel(const T* x, T* y, Mask mask, unsigned vectors) {
  for (unsigned i = first(); i < vectors; i += step()) {
    float v[V];
    load<V>(x + static_cast<std::size_t>(i) * V, v);
    for (int j = 0; j < V; ++j) {
      // A dropped element is zero even where x is infinite.
      const float factor = mask.factor(i * V + static_cast<unsigned>(j));
      v[j] = factor == 0 ? 0.0F : v[j] * factor;
    }
    store<V>(y + static_cast<std::size_t>(i) * V, v);
  }
}

}  // namespace

void dropout_cuda(const TensorView& x, const TensorView& y, const DropoutArgs& args) {
  if (x.numel() == 0) return;
  LIMBECK_CHECK(x.numel() < (std::int64_t{1} << 32), "dropout", "{} elements are more than a kernel counts", x.numel());
  Mask mask{RandomWords(args.generator), args.threshold(), static_cast<float>(args.scale()), 1, 0, args.whole_channels};
  if (x.shape.size() == 4) {
    mask.channels = static_cast<unsigned>(x.c());
    mask.area = static_cast<unsigned>(x.h() * x.w());
  }
  visit_fast_dtype("dropout", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        x.numel(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const auto vectors = static_cast<unsigned>(x.numel() / V);
          launch(dropout_kernel<V, T>, grid_for(vectors), kBlock, x.ptr<const T>(), y.ptr<T>(), mask, vectors);
        },
        x.ptr<const T>(), y.ptr<const T>());
  });
}

}  // namespace limbeck::ops
