// What this is: work on the channels of one pixel by a few lanes of a warp: softmaxes over classes and the losses made
//   of them. A channels-last pixel is a short row, so several pixels share a warp.
#pragma once

#include "core/cuda/kernel.cuh"

namespace limbeck::ops {

/// Lanes that share a pixel of `channels` channels: about four channels each, a power of two, at most a warp.
[[nodiscard]] inline unsigned lanes_per_pixel(std::int64_t channels) {
  unsigned lanes = 1;
  while (lanes < cuda::kWarp && 4 * lanes < channels) lanes *= 2;
  return lanes;
}

/// The pixel of this thread and its place in it. All lanes of a warp stay in the loop to the end, because they meet in
/// shuffles: those without a pixel read the last one and write nothing.
struct PixelLane {
  unsigned pixel;
  unsigned lane;
  bool active;
  __device__ PixelLane(unsigned pixels, unsigned lanes) {
    const unsigned group = (blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    lane = threadIdx.x % lanes;
    active = group < pixels;
    pixel = active ? group : pixels - 1;
  }
};

/// Maximum over the channels of a row; every lane gets it.
template <class T>
__device__ inline float row_max(const T* row, unsigned channels, unsigned lane, unsigned lanes) {
  float largest = -INFINITY;
  for (unsigned c = lane; c < channels; c += lanes) largest = cuda::Max{}(largest, cuda::to_float(row[c]));
  return cuda::warp_all(largest, cuda::Max{}, lanes);
}

/// Sum over the channels of f(value); every lane gets it.
template <class T, class F>
__device__ inline float row_sum(const T* row, unsigned channels, unsigned lane, unsigned lanes, F f) {
  float sum = 0;
  for (unsigned c = lane; c < channels; c += lanes) sum += f(cuda::to_float(row[c]), c);
  return cuda::warp_all(sum, cuda::Add{}, lanes);
}

}  // namespace limbeck::ops
