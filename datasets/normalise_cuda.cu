// Bytes to network input: a thread makes 16 bytes of it, from the 4 or 8 bytes of as many numbers. Three channels do not divide
// these, so the channel goes round.
#include "core/cuda/kernel.cuh"
#include "datasets/normalise.h"

namespace limbeck::datasets {
namespace {

using namespace cuda;

struct Line {
  float scale[3], shift[3];

  /// What `byte` of channel `c` becomes. Chosen by comparison: an index would put the arrays into memory.
  __device__ float at(unsigned byte, unsigned c) const {
    const float a = c == 0 ? scale[0] : (c == 1 ? scale[1] : scale[2]);
    const float b = c == 0 ? shift[0] : (c == 1 ? shift[1] : shift[2]);
    return fmaf(static_cast<float>(byte), a, b);
  }
};

/// `count`: vectors of V elements; with V > 1 the bytes are aligned to V.
template <int V, class T>
__global__ void normalise_kernel(const std::uint8_t* bytes, Line line, T* y, unsigned count) {
  for (unsigned i = first(); i < count; i += step()) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    unsigned words[(V + 3) / 4];
    if constexpr (V == 1) {
      words[0] = bytes[at];
    } else {
      for (int w = 0; w < V / 4; ++w) words[w] = reinterpret_cast<const unsigned*>(bytes + at)[w];
    }
    unsigned c = static_cast<unsigned>(at % 3);
    float value[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      value[j] = line.at(words[j / 4] >> (8U * (static_cast<unsigned>(j) % 4)) & 0xFFU, c);
      c = c == 2 ? 0 : c + 1;
    }
    store<V>(y + at, value);
  }
}

}  // namespace

void normalise_cuda(const TensorView& bytes, const Normalisation& n, const TensorView& y) {
  LIMBECK_CHECK(y.numel() < (std::int64_t{1} << 32), "normalise", "{} elements are more than a kernel counts",
                y.numel());
  const Line line{{n.scale[0], n.scale[1], n.scale[2]}, {n.shift[0], n.shift[1], n.shift[2]}};
  visit_fast_dtype("normalise", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        y.numel(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const auto count = static_cast<unsigned>(y.numel() / V);
          launch(normalise_kernel<V, T>, grid_for(count), kBlock, bytes.ptr<const std::uint8_t>(), line, y.ptr<T>(),
                 count);
        },
        bytes.ptr<const std::uint8_t>(), y.ptr<const T>());
  });
}

}  // namespace limbeck::datasets
