// What this is: depthwise weight gradient for f32 and bf16 maps stored [N][H][W][C].
#include <algorithm>
#include <array>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/depthwise_kernels.h"
#include "ops/depthwise_taps.h"
#include "ops/simd.h"

namespace limbeck::ops {
namespace {

using simd::kLanes;
using simd::Vec;

/// A tap of the weight gradient: sums[c] += gy[q][c] * row[first + q * step][c].
template <class T>
struct SumTap {
  float* sums;
  const T* row;
  std::int64_t first;
};

/// Taps k .. k+Taps-1 over pixels begin .. end-1.
template <class T, int Taps, bool Partial>
[[gnu::always_inline]] inline void sum_vector(const SumTap<T>* taps, const T* gy, std::int64_t begin, std::int64_t end,
                                              std::int64_t step, std::int64_t channels, std::int64_t c,
                                              std::int64_t count) {
  const auto get = [count](const auto* p) { return Partial ? simd::load_some(p, count) : simd::load(p); };
  Vec sum[Taps];
  const T* x[Taps];
  for (int k = 0; k < Taps; ++k) {
    sum[k] = get(taps[k].sums + c);
    x[k] = taps[k].row + (taps[k].first + begin * step) * channels + c;
  }
  for (std::int64_t q = begin; q < end; ++q) {
    const Vec g = get(gy + q * channels + c);
    for (int k = 0; k < Taps; ++k) sum[k] += g * get(x[k] + (q - begin) * step * channels);
  }
  for (int k = 0; k < Taps; ++k) {
    if constexpr (Partial) {
      simd::store_some(taps[k].sums + c, sum[k], count);
    } else {
      simd::store(taps[k].sums + c, sum[k]);
    }
  }
}

template <class T, int Taps>
void sum_taps(const SumTap<T>* taps, const T* gy, std::int64_t begin, std::int64_t end, std::int64_t step,
              std::int64_t channels) {
  constexpr std::int64_t kSegment = 8;  // pixels; keeps the reads of one pass over the channels close together
  for (std::int64_t q = begin; q < end; q += kSegment) {
    const std::int64_t stop = std::min(end, q + kSegment);
    std::int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes)
      sum_vector<T, Taps, false>(taps, gy, q, stop, step, channels, c, kLanes);
    if (c < channels) sum_vector<T, Taps, true>(taps, gy, q, stop, step, channels, c, channels - c);
  }
}

/// Rows of three neighbouring taps over pixels begin .. end-1: every pixel of x is loaded once per row, not once per tap.
template <class T, int Rows, int Step>
void sum_rows(const SumTap<T>* taps, const T* gy, std::int64_t begin, std::int64_t end, std::int64_t channels,
              std::int64_t c) {
  Vec sum[Rows][3], window[Rows][3];
  const T* x[Rows];
  for (int r = 0; r < Rows; ++r) {
    for (int s = 0; s < 3; ++s) sum[r][s] = simd::load(taps[3 * r + s].sums + c);
    x[r] = taps[3 * r].row + (taps[3 * r].first + begin * Step) * channels + c;
    for (int s = Step; s < 3; ++s) window[r][s] = simd::load(x[r] + (s - Step) * channels);
  }
  for (std::int64_t q = begin; q < end; ++q) {
    const Vec g = simd::load(gy + q * channels + c);
    for (int r = 0; r < Rows; ++r) {
      for (int s = 0; s < 3; ++s) {
        window[r][s] = s + Step < 3 ? window[r][s + Step] : simd::load(x[r] + s * channels);
        sum[r][s] += g * window[r][s];
      }
      x[r] += Step * channels;
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int s = 0; s < 3; ++s) simd::store(taps[3 * r + s].sums + c, sum[r][s]);
  }
}

/// Two or three rows of three neighbours (`count` taps)?
template <class T>
bool are_rows_of_three(const SumTap<T>* taps, std::size_t count) {
  if (count != 6 && count != 9) return false;
  for (std::size_t k = 0; k < count; ++k) {
    if (taps[k].first != taps[0].first + static_cast<std::int64_t>(k % 3) || taps[k].row != taps[k / 3 * 3].row)
      return false;
  }
  return true;
}

/// All taps of one row of gy, for pixels that see them all.
template <class T>
void sum_interior(const SumTap<T>* taps, std::size_t count, const T* gy, std::int64_t begin, std::int64_t end,
                  std::int64_t step, std::int64_t channels) {
  if (channels % kLanes == 0 && step <= 2 && are_rows_of_three(taps, count)) {
    const auto run = count == 9 ? (step == 1 ? sum_rows<T, 3, 1> : sum_rows<T, 3, 2>)
                                : (step == 1 ? sum_rows<T, 2, 1> : sum_rows<T, 2, 2>);
    constexpr std::int64_t kPixels = 16;  // keeps the reads of one pass over the channels close together
    for (std::int64_t q = begin; q < end; q += kPixels) {
      for (std::int64_t c = 0; c < channels; c += kLanes) run(taps, gy, q, std::min(end, q + kPixels), channels, c);
    }
    return;
  }
  std::size_t k = 0;
  for (; k + 9 <= count; k += 9) sum_taps<T, 9>(taps + k, gy, begin, end, step, channels);
  for (; k + 5 <= count; k += 5) sum_taps<T, 5>(taps + k, gy, begin, end, step, channels);
  for (; k + 3 <= count; k += 3) sum_taps<T, 3>(taps + k, gy, begin, end, step, channels);
  for (; k < count; ++k) sum_taps<T, 1>(taps + k, gy, begin, end, step, channels);
}

/// All taps of one row of gy.
template <class T>
void sum_row(const SumTap<T>* taps, std::size_t count, const T* gy, std::int64_t width, std::int64_t x_width,
             std::int64_t step, std::int64_t channels) {
  std::int64_t begin = 0;
  std::int64_t end = width;
  for (std::size_t k = 0; k < count; ++k) {
    const auto [b, e] = depthwise_tap_range(taps[k].first, step, x_width);
    begin = std::max(begin, b);
    end = std::min(end, e);
  }
  end = std::max(begin, end);
  for (std::size_t k = 0; k < count; ++k) {  // border pixels that this tap sees
    const auto [b, e] = depthwise_tap_range(taps[k].first, step, x_width);
    sum_taps<T, 1>(taps + k, gy, b, std::min({begin, e, width}), step, channels);
    sum_taps<T, 1>(taps + k, gy, std::max(end, b), std::min(e, width), step, channels);
  }
  sum_interior(taps, count, gy, begin, end, step, channels);
}

template <class T>
void backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& o, const TensorView& gw) {
  const std::int64_t channels = x.c();
  const std::int64_t size = gw.numel();
  const std::int64_t rows = gy.n() * gy.h();
  // Two stages: a partial sum per block of rows, then the blocks in order. The blocks do not depend on the threads.
  const std::int64_t blocks = std::min(rows, reduction_blocks(gy.numel(), kDepthwiseGrain));
  const Workspace partial(static_cast<std::size_t>(blocks * size) * sizeof(float));
  parallel_for(blocks, 1, [&](auto first_block, auto last_block) {
    std::array<SumTap<T>, kMostDepthwiseTaps> taps;
    for (std::int64_t block = first_block; block < last_block; ++block) {
      float* sums = partial.as<float>() + block * size;
      std::fill_n(sums, size, 0.0F);
      for (std::int64_t row = rows * block / blocks; row < rows * (block + 1) / blocks; ++row) {
        const std::int64_t n = row / gy.h();
        const std::int64_t p = row % gy.h();
        std::size_t count = 0;
        for (std::int64_t r = 0; r < gw.h(); ++r) {
          const std::int64_t h = p * o.stride[0] - o.padding[0] + r * o.dilation[0];
          if (h < 0 || h >= x.h()) continue;
          for (std::int64_t s = 0; s < gw.w(); ++s) {
            taps[count++] = {sums + (r * gw.w() + s) * channels, x.ptr<T>() + (n * x.h() + h) * x.w() * channels,
                             s * o.dilation[1] - o.padding[1]};
          }
        }
        sum_row(taps.data(), count, gy.ptr<T>() + row * gy.w() * channels, gy.w(), x.w(), o.stride[1], channels);
      }
    }
  });
  const std::int64_t kernel = gw.h() * gw.w();
  parallel_for(channels, 64, [&](auto begin, auto end) {
    for (std::int64_t c = begin; c < end; ++c) {
      for (std::int64_t k = 0; k < kernel; ++k) {
        double sum = 0.0;
        for (std::int64_t b = 0; b < blocks; ++b) {
          sum += static_cast<double>(partial.as<float>()[b * size + k * channels + c]);
        }
        gw.ptr<float>()[c * kernel + k] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace

void depthwise_backward_weights_cpu(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                    const TensorView& gw) {
  check_depthwise_taps(gw);
  visit_fast_dtype("depthwise_conv2d", x.dtype,
                   [&](auto zero) { backward_weights<decltype(zero)>(x, gy, options, gw); });
}

}  // namespace limbeck::ops
