// What this is: what the fast depthwise kernels share: which pixels of a row a tap of the kernel sees.
// Read next: ops/depthwise_cpu.cpp, Note [taps of a row].
#pragma once

#include <cstdint>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// Taps of one kernel; larger ones take the reference.
inline constexpr std::size_t kMostDepthwiseTaps = 256;
/// Elements of work below which a thread is not worth its start.
inline constexpr std::int64_t kDepthwiseGrain = 1 << 13;

/// Range [begin, end) of t with 0 <= first + t * step < size.
/// Shapes:   none
inline std::pair<std::int64_t, std::int64_t> depthwise_tap_range(std::int64_t first, std::int64_t step,
                                                                 std::int64_t size) {
  const std::int64_t begin = first >= 0 ? 0 : (-first + step - 1) / step;
  const std::int64_t end = first >= size ? 0 : (size - 1 - first) / step + 1;
  return {begin, end};
}

/// Throws ShapeError for a kernel with more taps than the fast kernels hold.
/// Shapes:   w [C,1,KH,KW]
inline void check_depthwise_taps(const TensorView& w) {
  LIMBECK_CHECK(w.h() * w.w() <= static_cast<std::int64_t>(kMostDepthwiseTaps), "depthwise_conv2d",
                "kernel of {}x{} taps, at most {} are supported", w.h(), w.w(), kMostDepthwiseTaps);
}

}  // namespace limbeck::ops
