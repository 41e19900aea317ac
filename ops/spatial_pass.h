// What this is: how to run over the H*W positions of a channels-last map when every channel has its own maximum and
//   its own sum (softmax over space, channel-wise distillation).
// What it is not: for sums over channels; those use ops/pixel_tile.h.
// Read next: ops/softmax_cpu.cpp, distill/channel_kd_cpu.cpp.
//
// Note [rows and lanes]
//   In memory the channel index repeats with period C. A "row" is a run of `row` = k*C floats, a multiple of the vector
//   length: element j of every row belongs to channel j mod C. Accumulators are arrays of `row` lanes, loops run over
//   the lanes of a row with full vectors, and folding lanes j, j + C, j + 2C, ... at the end gives the channels.
// Note [chunks]
//   A chunk of pixels fits in the second-level cache. Its maximum and, from cache, its sums are taken in one visit; the
//   chunks' sums are brought to a common maximum afterwards, in double and in order. So the whole map is read once for the
//   statistics and once for the result, and the rounding does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "core/tensor.h"

namespace limbeck::ops {

struct SpatialPlan {
  std::int64_t images = 0, pixels = 0, c = 0;
  std::int64_t row = 0;         ///< lanes, a multiple of c
  std::int64_t chunk = 0;       ///< elements in a chunk, a multiple of row
  std::int64_t image_size = 0;  ///< elements in an image
  std::int64_t chunks = 0;      ///< per image

  explicit SpatialPlan(const TensorView& v) : images(v.n()), pixels(v.h() * v.w()), c(v.c()) {
    constexpr std::int64_t kVector = 16;
    constexpr std::int64_t kLeastRow = 128;   // shorter rows would add to the same lane before it is ready
    constexpr std::int64_t kChunk = 1 << 15;  // floats; two maps of it take 256 KiB
    row = std::lcm(c, kVector);
    row *= (kLeastRow + row - 1) / row;
    chunk = std::max<std::int64_t>(1, kChunk / row) * row;
    image_size = pixels * c;
    chunks = (image_size + chunk - 1) / chunk;
  }
  [[nodiscard]] std::int64_t total_chunks() const noexcept { return images * chunks; }
  /// First element (over all images) and length of chunk `k` of all.
  [[nodiscard]] std::int64_t begin(std::int64_t k) const noexcept {
    return k / chunks * image_size + k % chunks * chunk;
  }
  [[nodiscard]] std::int64_t length(std::int64_t k) const noexcept {
    return std::min(chunk, image_size - k % chunks * chunk);
  }
  /// Lanes that a chunk of this length touches.
  [[nodiscard]] std::int64_t lanes(std::int64_t length) const noexcept { return std::min(row, length); }
};

/// Calls `body(offset, count)` for the rows of a chunk; only the last may be shorter than plan.row.
/// Shapes:   none
template <class Body>
inline void for_rows(const SpatialPlan& plan, std::int64_t length, const Body& body) {
  for (std::int64_t at = 0; at < length; at += plan.row) body(at, std::min(plan.row, length - at));
}

/// Copies one value per channel to all its lanes.
/// Shapes:   channel [c], lane [row]
template <class T>
inline void spread(const SpatialPlan& plan, const T* channel, float* lane) {
  for (std::int64_t j = 0; j < plan.c; ++j) lane[j] = static_cast<float>(channel[j]);
  for (std::int64_t j = plan.c; j < plan.row; ++j) lane[j] = lane[j - plan.c];
}

/// channel[ch] = sum of the channel's lanes.
/// Shapes:   lane [row], channel [c]
inline void fold_sum(const SpatialPlan& plan, const float* lane, double* channel) {
  for (std::int64_t ch = 0; ch < plan.c; ++ch) channel[ch] = 0;
  for (std::int64_t at = 0; at < plan.row; at += plan.c) {
    for (std::int64_t ch = 0; ch < plan.c; ++ch) channel[ch] += static_cast<double>(lane[at + ch]);
  }
}

/// Maximum of every channel over a chunk, into channel 0..c-1 of `lane` and spread over all lanes.
/// Shapes:   x `length` elements, lane [row]
template <class T>
inline void chunk_max(const SpatialPlan& plan, const T* x, std::int64_t length, float* lane) {
  const std::int64_t used = plan.lanes(length);
  for (std::int64_t j = 0; j < used; ++j) lane[j] = static_cast<float>(x[j]);
  for_rows(plan, length, [&](std::int64_t at, std::int64_t count) {
    const T* xr = x + at;
#pragma omp simd
    for (std::int64_t j = 0; j < count; ++j) {
      const auto v = static_cast<float>(xr[j]);
      lane[j] = v > lane[j] ? v : lane[j];
    }
  });
  for (std::int64_t j = plan.c; j < used; ++j) lane[j % plan.c] = std::max(lane[j % plan.c], lane[j]);
  for (std::int64_t j = plan.c; j < plan.row; ++j) lane[j] = lane[j - plan.c];
}

}  // namespace limbeck::ops
