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
/// shuffles: those without a pixel read the last one and write nothing. `turn`: how often all threads of the grid have had one before.
struct PixelLane {
  unsigned pixel;
  unsigned lane;
  bool active;
  __device__ PixelLane(unsigned pixels, unsigned lanes, unsigned turn = 0) {
    const unsigned group = ((turn * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    lane = threadIdx.x % lanes;
    active = group < pixels;
    pixel = active ? group : pixels - 1;
  }
};

/// The blocks of a kernel that leaves one number each, and how many turns its threads take. So few that one block adds up the
/// numbers in no time.
struct PixelTurns {
  unsigned blocks, turns;
  PixelTurns(std::int64_t pixels, unsigned lanes) {
    constexpr unsigned kMost = 2112;  // sixteen for each of Hopper's 132 multiprocessors
    const unsigned wanted = cuda::ceil_div(pixels * lanes, cuda::kBlock);
    blocks = wanted < kMost ? wanted : kMost;
    turns = cuda::ceil_div(wanted, blocks);
  }
};

/// How many channels of a pixel a lane keeps in registers; see PixelRow.
inline constexpr int kKeptChannels = 4;

/// Calls f(std::integral_constant<int, K>) with K = kKeptChannels if the lanes of a pixel can keep it, else with 0.
template <class F>
void visit_kept_channels(std::int64_t channels, unsigned lanes, F&& f) {
  if (channels <= std::int64_t{kKeptChannels} * lanes) {
    f(std::integral_constant<int, kKeptChannels>{});
  } else {
    f(std::integral_constant<int, 0>{});
  }
}

/// The channels c = lane, lane + lanes, ... of a pixel. K > 0: each lane has K of them at most, loads them together and keeps them;
/// K = 0: they are loaded whenever they are used.
template <int K, class T>
class PixelRow {
 public:
  __device__ PixelRow(const T* row, unsigned channels, unsigned lane, unsigned lanes)
      : row_(row), channels_(channels), lane_(lane), lanes_(lanes) {
    if constexpr (K > 0) {
#pragma unroll
      for (unsigned j = 0; j < K; ++j) {
        const unsigned c = lane + j * lanes;
        kept_[j] = c < channels ? cuda::to_float(row[c]) : 0.0F;
      }
    }
  }

  /// f(value, channel, place): place is the index of the channel among those of the lane.
  template <class F>
  __device__ void each(const F& f) const {
    if constexpr (K > 0) {
#pragma unroll
      for (unsigned j = 0; j < K; ++j) {
        const unsigned c = lane_ + j * lanes_;
        if (c < channels_) f(kept_[j], c, j);
      }
    } else {
      unsigned j = 0;
      for (unsigned c = lane_; c < channels_; c += lanes_) f(cuda::to_float(row_[c]), c, j++);
    }
  }
  /// Channel number `place` of the lane, which must exist; for loops over another row of the same pixel.
  __device__ float at(unsigned place) const {
    if constexpr (K > 0) {
      return kept_[place];
    } else {
      return cuda::to_float(row_[lane_ + place * lanes_]);
    }
  }

  /// Maximum over the channels; every lane gets it.
  __device__ float max() const {
    float largest = -INFINITY;
    each([&](float v, unsigned, unsigned) { largest = cuda::Max{}(largest, v); });
    return cuda::warp_all(largest, cuda::Max{}, lanes_);
  }
  /// Sum over the channels of f(value, channel, place); every lane gets it.
  template <class F>
  __device__ float sum(const F& f) const {
    float total = 0;
    each([&](float v, unsigned c, unsigned j) { total += f(v, c, j); });
    return cuda::warp_all(total, cuda::Add{}, lanes_);
  }

 private:
  const T* row_;
  unsigned channels_, lane_, lanes_;
  float kept_[K > 0 ? K : 1];
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
