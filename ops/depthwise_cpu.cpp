// What this is: depthwise kernels for f32 and bf16 maps stored [N][H][W][C].
//
// Note [taps of a row]
//   All three passes walk rows of pixels. For one row, a Tap is a weight vector and a row of the other map: pixel t of
//   this row meets pixel first + t * step of the other. Forward: step = stride. Data gradient: the pixels that share a
//   remainder modulo the stride see the same taps, so they form a row of their own with step 1. This is the gather form:
//   every pixel is written once, no zeros are multiplied, nothing is added by two threads.
//   Pixels for which every tap is inside form the interior, done four at a time; the few others check each tap.
#include <algorithm>
#include <array>
#include <utility>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/depthwise_kernels.h"
#include "ops/simd.h"

namespace limbeck::ops {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr std::size_t kMostTaps = 256;       // of one kernel; larger ones take the reference
constexpr std::int64_t kRowGrain = 1 << 13;  // elements of work below which a thread is not worth its start

template <class T>
struct Tap {
  const float* weight;  // [C]
  const T* row;         // pixel 0 of the row
  std::int64_t first;   // pixel that meets t = 0; may be negative
};

template <class T>
struct TapList {
  std::array<Tap<T>, kMostTaps> taps;
  std::size_t count = 0;
  void add(const float* weight, const T* row, std::int64_t first) { taps[count++] = {weight, row, first}; }
};

/// Range of t with 0 <= first + t * step < size.
std::pair<std::int64_t, std::int64_t> inside(std::int64_t first, std::int64_t step, std::int64_t size) {
  const std::int64_t begin = first >= 0 ? 0 : (-first + step - 1) / step;
  const std::int64_t end = first >= size ? 0 : (size - 1 - first) / step + 1;
  return {begin, end};
}

/// X is the type of the map that is read, Y that of the result.
template <class X, class Y = X>
struct RowPass {
  std::int64_t channels, step, other_width;
  Y* y;                 // pixel t is y + t * y_step
  std::int64_t y_step;  // in elements
  const float* bias;    // [C] or null
  const Y* residual;    // as y, or null
  Activation act;
};

/// Four pixels (or one) for the channels from c on; `count` < kLanes channels are at hand for the last vector.
template <int Pixels, bool Partial, class X, class Y>
[[gnu::always_inline]] inline void accumulate(const RowPass<X, Y>& pass, const TapList<X>& list, std::int64_t t,
                                              std::int64_t c, std::int64_t count) {
  const auto get = [count](const auto* p) { return Partial ? simd::load_some(p, count) : simd::load(p); };
  Vec sum[Pixels];
  for (auto& s : sum) s = pass.bias != nullptr ? get(pass.bias + c) : Vec{};
  for (std::size_t k = 0; k < list.count; ++k) {
    const Tap<X>& tap = list.taps[k];
    const Vec weight = get(tap.weight + c);
    const X* x = tap.row + (tap.first + t * pass.step) * pass.channels + c;
    for (int i = 0; i < Pixels; ++i) sum[i] += weight * get(x + i * pass.step * pass.channels);
  }
  for (int i = 0; i < Pixels; ++i) {
    const std::int64_t at = (t + i) * pass.y_step + c;
    if (pass.residual != nullptr) sum[i] += get(pass.residual + at);
    const Vec value = simd::activate(pass.act, sum[i]);
    if constexpr (Partial) {
      simd::store_some(pass.y + at, value, count);
    } else {
      simd::store(pass.y + at, value);
    }
  }
}

template <int Pixels, class X, class Y>
void pixels(const RowPass<X, Y>& pass, const TapList<X>& list, std::int64_t t) {
  std::int64_t c = 0;
  for (; c + kLanes <= pass.channels; c += kLanes) accumulate<Pixels, false>(pass, list, t, c, kLanes);
  if (c < pass.channels) accumulate<Pixels, true>(pass, list, t, c, pass.channels - c);
}

/// Writes pixels 0 .. count-1 of a row.
template <class X, class Y>
void run_row(const RowPass<X, Y>& pass, const TapList<X>& list, std::int64_t count) {
  std::int64_t begin = 0;
  std::int64_t end = count;
  for (std::size_t k = 0; k < list.count; ++k) {
    const auto [b, e] = inside(list.taps[k].first, pass.step, pass.other_width);
    begin = std::max(begin, b);
    end = std::min(end, e);
  }
  begin = std::min(begin, count);
  end = std::max(begin, end);

  const auto border = [&](std::int64_t t) {
    TapList<X> some;
    for (std::size_t k = 0; k < list.count; ++k) {
      const std::int64_t at = list.taps[k].first + t * pass.step;
      if (at >= 0 && at < pass.other_width) some.taps[some.count++] = list.taps[k];
    }
    pixels<1>(pass, some, t);
  };
  std::int64_t t = 0;
  for (; t < begin; ++t) border(t);
  for (; t + 4 <= end; t += 4) pixels<4>(pass, list, t);
  for (; t < end; ++t) pixels<1>(pass, list, t);
  for (; t < count; ++t) border(t);
}

/// [C,1,KH,KW] (stored [C][KH][KW]) to [KH][KW][C].
void reorder_weights(const TensorView& w, float* out) {
  const std::int64_t taps = w.h() * w.w();
  const std::int64_t channels = w.n();
  const auto* source = w.ptr<float>();
  for (std::int64_t k = 0; k < taps; ++k) {
    for (std::int64_t c = 0; c < channels; ++c) out[k * channels + c] = source[c * taps + k];
  }
}

std::int64_t floor_mod(std::int64_t a, std::int64_t b) { return ((a % b) + b) % b; }

void check_taps(const TensorView& w) {
  LIMBECK_CHECK(w.h() * w.w() <= static_cast<std::int64_t>(kMostTaps), "depthwise_conv2d",
                "kernel of {}x{} taps, at most {} are supported", w.h(), w.w(), kMostTaps);
}

template <class X, class Y>
void forward(const TensorView& x, const float* weights, const Shape& w, const TensorView& bias,
             const TensorView& residual, Activation act, const Conv2dOptions& o, const DepthwiseRows& rows,
             const TensorView& y) {
  const std::int64_t channels = x.c();
  const std::int64_t row_size = y.w() * channels;
  parallel_for(y.n() * y.h(), std::max<std::int64_t>(1, kRowGrain / row_size), [&](auto begin, auto end) {
    TapList<X> list;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t n = row / y.h();
      const std::int64_t p = row % y.h() + rows.y_first;
      list.count = 0;
      for (std::int64_t r = 0; r < w[2]; ++r) {
        const std::int64_t h = p * o.stride[0] - o.padding[0] + r * o.dilation[0];
        if (h < 0 || h >= rows.x_height) continue;
        const X* source = x.ptr<X>() + (n * x.h() + h - rows.x_first) * x.w() * channels;
        for (std::int64_t s = 0; s < w[3]; ++s) {
          list.add(weights + (r * w[3] + s) * channels, source, s * o.dilation[1] - o.padding[1]);
        }
      }
      const RowPass<X, Y> pass{channels,
                               o.stride[1],
                               x.w(),
                               y.ptr<Y>() + row * row_size,
                               channels,
                               bias.defined() ? bias.ptr<float>() : nullptr,
                               residual.defined() ? residual.ptr<Y>() + row * row_size : nullptr,
                               act};
      run_row(pass, list, y.w());
    }
  });
}

template <class T>
void backward_data(const TensorView& gy, const TensorView& w, const TensorView& bias, const Conv2dOptions& o,
                   const TensorView& gx) {
  const std::int64_t channels = gx.c();
  const Workspace weights(static_cast<std::size_t>(w.numel()) * sizeof(float));
  reorder_weights(w, weights.as<float>());
  const std::int64_t row_size = gx.w() * channels;
  parallel_for(gx.n() * gx.h(), std::max<std::int64_t>(1, kRowGrain / row_size), [&](auto begin, auto end) {
    TapList<T> list;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t n = row / gx.h();
      const std::int64_t h = row % gx.h();
      for (std::int64_t phase = 0; phase < std::min(o.stride[1], gx.w()); ++phase) {
        list.count = 0;
        for (std::int64_t r = 0; r < w.h(); ++r) {
          const std::int64_t up = h + o.padding[0] - r * o.dilation[0];  // = output row * stride
          if (up < 0 || up % o.stride[0] != 0 || up / o.stride[0] >= gy.h()) continue;
          const T* source = gy.ptr<T>() + (n * gy.h() + up / o.stride[0]) * gy.w() * channels;
          for (std::int64_t s = 0; s < w.w(); ++s) {
            const std::int64_t left = phase + o.padding[1] - s * o.dilation[1];
            if (floor_mod(left, o.stride[1]) != 0) continue;
            list.add(weights.as<float>() + (r * w.w() + s) * channels, source, left / o.stride[1]);
          }
        }
        const RowPass<T> pass{channels,
                              1,
                              gy.w(),
                              gx.ptr<T>() + row * row_size + phase * channels,
                              o.stride[1] * channels,
                              bias.defined() ? bias.ptr<float>() : nullptr,
                              nullptr,
                              Activation::kNone};
        run_row(pass, list, (gx.w() - phase + o.stride[1] - 1) / o.stride[1]);
      }
    }
  });
}

// --- weight gradient ------------------------------------------------------------------------------------------------

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

/// All taps of one row of gy.
template <class T>
void sum_row(const SumTap<T>* taps, std::size_t count, const T* gy, std::int64_t width, std::int64_t x_width,
             std::int64_t step, std::int64_t channels) {
  std::int64_t begin = 0;
  std::int64_t end = width;
  for (std::size_t k = 0; k < count; ++k) {
    const auto [b, e] = inside(taps[k].first, step, x_width);
    begin = std::max(begin, b);
    end = std::min(end, e);
  }
  end = std::max(begin, end);
  for (std::size_t k = 0; k < count; ++k) {  // border pixels that this tap sees
    const auto [b, e] = inside(taps[k].first, step, x_width);
    sum_taps<T, 1>(taps + k, gy, b, std::min({begin, e, width}), step, channels);
    sum_taps<T, 1>(taps + k, gy, std::max(end, b), std::min(e, width), step, channels);
  }
  std::size_t k = 0;
  for (; k + 9 <= count; k += 9) sum_taps<T, 9>(taps + k, gy, begin, end, step, channels);
  for (; k + 5 <= count; k += 5) sum_taps<T, 5>(taps + k, gy, begin, end, step, channels);
  for (; k + 3 <= count; k += 3) sum_taps<T, 3>(taps + k, gy, begin, end, step, channels);
  for (; k < count; ++k) sum_taps<T, 1>(taps + k, gy, begin, end, step, channels);
}

template <class T>
void backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& o, const TensorView& gw) {
  const std::int64_t channels = x.c();
  const std::int64_t size = gw.numel();
  const std::int64_t rows = gy.n() * gy.h();
  // Two stages: a partial sum per block of rows, then the blocks in order. The blocks do not depend on the threads.
  const std::int64_t blocks = std::min(rows, reduction_blocks(gy.numel(), kRowGrain));
  const Workspace partial(static_cast<std::size_t>(blocks * size) * sizeof(float));
  parallel_for(blocks, 1, [&](auto first_block, auto last_block) {
    std::array<SumTap<T>, kMostTaps> taps;
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

void depthwise_forward_cpu(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                           Activation act, const Conv2dOptions& options, const TensorView& y) {
  const Workspace packed(static_cast<std::size_t>(w.numel()) * sizeof(float));
  depthwise_pack(w, packed.as<float>());
  depthwise_rows(x, packed.as<float>(), w.shape, bias, residual, act, options, {0, x.h(), 0}, y);
}

void depthwise_pack(const TensorView& w, float* packed) {
  check_taps(w);
  reorder_weights(w, packed);
}

void depthwise_rows(const TensorView& x, const float* packed, const Shape& w, const TensorView& bias,
                    const TensorView& residual, Activation act, const Conv2dOptions& options, const DepthwiseRows& rows,
                    const TensorView& y) {
  visit_fast_dtype("depthwise_conv2d", x.dtype, [&](auto x_zero) {
    visit_fast_dtype("depthwise_conv2d", y.dtype, [&](auto y_zero) {
      forward<decltype(x_zero), decltype(y_zero)>(x, packed, w, bias, residual, act, options, rows, y);
    });
  });
}

void depthwise_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                 const Conv2dOptions& options, const TensorView& gx) {
  check_taps(w);
  visit_fast_dtype("depthwise_conv2d", gy.dtype,
                   [&](auto zero) { backward_data<decltype(zero)>(gy, w, bias, options, gx); });
}

void depthwise_backward_weights_cpu(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                    const TensorView& gw) {
  check_taps(gw);
  visit_fast_dtype("depthwise_conv2d", x.dtype,
                   [&](auto zero) { backward_weights<decltype(zero)>(x, gy, options, gw); });
}

}  // namespace limbeck::ops
