// Dropout on the GPU: the mask is Note [dropout masks], so it has the same zeros as on the CPU.
#include "core/cuda/kernel.cuh"
#include "core/step_graph.h"
#include "ops/dropout_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// Word `index` of the sequence: Philox 4x32-10 as in core/rng.cpp; tests compare the two.
__device__ inline unsigned random_word(unsigned long long index, unsigned long long stream, unsigned long long seed) {
  const unsigned long long counter = index / 4;
  auto c0 = static_cast<unsigned>(counter);
  auto c1 = static_cast<unsigned>(counter >> 32U);
  auto c2 = static_cast<unsigned>(stream);
  auto c3 = static_cast<unsigned>(stream >> 32U);
  auto k0 = static_cast<unsigned>(seed);
  auto k1 = static_cast<unsigned>(seed >> 32U);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53U, c0);
    const unsigned low0 = 0xD2511F53U * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57U, c2);
    const unsigned low1 = 0xCD9E8D57U * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const auto word = static_cast<unsigned>(index % 4);
  return word == 0 ? c0 : (word == 1 ? c1 : (word == 2 ? c2 : c3));
}

struct Mask {
  unsigned long long offset, stream, seed;
  const std::uint64_t* recorded;  // where a replay finds the stream of its step; null: it is `stream`
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
    const unsigned long long from = recorded == nullptr ? stream : *recorded;
    return random_word(offset + logical, from, seed) >> 8U >= threshold ? scale : 0.0F;
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
  Mask mask{args.generator.offset(),
            args.generator.stream(),
            args.generator.seed(),
            StepGraph::current() == nullptr ? nullptr : StepGraph::current()->find_stream(args.generator.stream()),
            args.threshold(),
            static_cast<float>(args.scale()),
            1,
            0,
            args.whole_channels};
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
