// What this is: work on the channels of one pixel by a few lanes of a warp, or by one: softmaxes over classes and the losses made
//   of them. A channels-last pixel is a short row, so several pixels share a warp.
//
// Note [staged pixels]
//   19 classes in bf16 are 38 bytes: no lane can read 16 of them at once, and where lanes share a pixel, half of what they do is to
//   exchange sums. Where classes are few, the pixels of a block, which lie one after the other, go through shared memory instead: the
//   block copies them 16 bytes at once, and a thread does all of one pixel, in registers, without shuffles. Rows whose length is no
//   multiple of 4 keep the threads of a warp on different banks, two to one at most.
#pragma once

#include "core/cuda/kernel.cuh"

namespace limbeck::ops {

/// Lanes that share a pixel of `channels` channels, or vectors: about four each, a power of two, at most a warp.
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

/// The channels c = lane, lane + lanes, ... of a pixel. K > 0: each lane has K of them at most, loads them together and keeps them;
/// K = 0: they are loaded whenever they are used. kExact: each lane has exactly K, which spares it to look.
template <int K, class T, bool kExact = false>
class PixelRow {
 public:
  __device__ PixelRow(const T* row, unsigned channels, unsigned lane, unsigned lanes)
      : row_(row), channels_(channels), lane_(lane), lanes_(lanes) {
    if constexpr (K > 0) {
#pragma unroll
      for (unsigned j = 0; j < K; ++j) {
        const unsigned c = lane + j * lanes;
        kept_[j] = kExact || c < channels ? cuda::to_float(row[c]) : 0.0F;
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
        if (kExact || c < channels_) f(kept_[j], c, j);
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

/// How a kernel's threads get the channels of their pixels: K of them in registers each (0: any number, loaded when they are used);
/// kStagedPixels: one thread per pixel, through a tile in shared memory, see Note [staged pixels]. The tile is free before and after
/// every call, for any map; staged, all threads of the block make the calls together.
template <int K, bool kStagedPixels, bool kExact = false>
struct PixelAccess {
  static constexpr int kKept = K;
  template <class T>
  using Row = PixelRow<K, T, kExact>;
  template <class T>
  static constexpr std::size_t kTileBytes = kStagedPixels ? std::size_t{cuda::kBlock} * K * sizeof(T) : 16;

  unsigned pixels, channels_wanted, lanes_wanted;

  [[nodiscard]] __device__ unsigned channels() const { return kExact ? K : channels_wanted; }

  [[nodiscard]] __device__ unsigned lanes() const { return kStagedPixels ? 1 : lanes_wanted; }
  [[nodiscard]] __device__ PixelLane lane(unsigned turn = 0) const { return PixelLane(pixels, lanes(), turn); }

  /// The row of the thread's pixel.
  template <class T>
  __device__ Row<T> load(const T* map, const PixelLane& at, unsigned turn, void* tile) const {
    if constexpr (kStagedPixels) {
      auto* to = static_cast<T*>(tile);
      copy(map + begin(turn), to, count(turn));
      __syncthreads();
      const Row<T> row(to + threadIdx.x * channels(), channels(), 0, 1);
      __syncthreads();
      return row;
    } else {
      return Row<T>(map + static_cast<std::size_t>(at.pixel) * channels(), channels(), at.lane, lanes());
    }
  }
  /// True if the thread may write at its place. Staged, threads without a pixel have one that is never copied.
  [[nodiscard]] __device__ static bool writes(const PixelLane& at) { return kStagedPixels || at.active; }
  /// Where the thread writes what it has for its pixel; afterwards flush() brings all of it into the map.
  template <class T>
  __device__ T* place(T* map, const PixelLane& at, void* tile) const {
    return kStagedPixels ? static_cast<T*>(tile) + threadIdx.x * channels()
                         : map + static_cast<std::size_t>(at.pixel) * channels();
  }
  template <class T>
  __device__ void flush(T* map, unsigned turn, const void* tile) const {
    if constexpr (kStagedPixels) {
      __syncthreads();
      copy(static_cast<const T*>(tile), map + begin(turn), count(turn));
      __syncthreads();
    }
  }

 private:
  /// The block's first element, and how many it has.
  __device__ std::size_t begin(unsigned turn) const {
    return (static_cast<std::size_t>(turn) * gridDim.x + blockIdx.x) * cuda::kBlock * channels();
  }
  __device__ unsigned count(unsigned turn) const {
    const std::size_t all = static_cast<std::size_t>(pixels) * channels();
    const std::size_t from = begin(turn);
    const std::size_t left = from < all ? all - from : 0;
    return left < cuda::kBlock * channels() ? static_cast<unsigned>(left) : cuda::kBlock * channels();
  }
  /// Both sides begin at a multiple of 16 bytes.
  template <class T>
  __device__ static void copy(const T* from, T* to, unsigned elements) {
    constexpr unsigned kVector = cuda::kLanes<T>;
    const unsigned vectors = elements / kVector;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vectors; i += cuda::kBlock)
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll 1
    for (unsigned i = vectors * kVector + threadIdx.x; i < elements; i += cuda::kBlock) to[i] = from[i];
  }
};

/// Calls f(PixelAccess) for maps of these channels. `pointers`: of all maps, for their alignment; null is aligned.
template <class F, class... P>
void visit_pixels(std::int64_t pixels, std::int64_t channels, F&& f, P*... pointers) {
  const bool in_vectors = (cuda::aligned(pointers) && ...);
  const unsigned lanes = lanes_per_pixel(channels);
  const auto call = [&]<int K, bool kStagedPixels, bool kExact>() {
    f(PixelAccess<K, kStagedPixels, kExact>{static_cast<unsigned>(pixels), static_cast<unsigned>(channels),
                                            kStagedPixels ? 1 : lanes});
  };
  if (in_vectors && channels < 32 && channels % 4 != 0) {
    switch (channels) {
      case 11: return call.template operator()<11, true, true>();  // the classes of CamVid,
      case 19: return call.template operator()<19, true, true>();  // of Cityscapes,
      case 21: return call.template operator()<21, true, true>();  // and of Pascal VOC
      default: return call.template operator()<32, true, false>();
    }
  }
  if (channels <= std::int64_t{kKeptChannels} * lanes) return call.template operator()<kKeptChannels, false, false>();
  call.template operator()<0, false, false>();
}

/// Maximum over the channels of a row; every lane gets it.
template <class T>
__device__ inline float row_max(const T* row, unsigned channels, unsigned lane, unsigned lanes) {
  float largest = -INFINITY;
  for (unsigned c = lane; c < channels; c += lanes) largest = cuda::Max{}(largest, cuda::to_float(row[c]));
  return cuda::warp_all(largest, cuda::Max{}, lanes);
}

/// Sum over the channels of f(value, channel); every lane gets it. V > 1: `channels` is a multiple of V, and the row aligned.
template <int V = 1, class T, class F>
__device__ inline float row_sum(const T* row, unsigned channels, unsigned lane, unsigned lanes, F f) {
  float sum = 0;
#pragma unroll 4
  for (unsigned c = lane * V; c < channels; c += lanes * V) {
    float v[V];
    cuda::load<V>(row + c, v);
    for (unsigned j = 0; j < V; ++j) sum += f(v[j], c + j);
  }
  return cuda::warp_all(sum, cuda::Add{}, lanes);
}

}  // namespace limbeck::ops
