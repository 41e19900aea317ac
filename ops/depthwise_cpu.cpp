// What this is: depthwise forward pass and data gradient for f32 and bf16 maps stored [N][H][W][C].
//
// Note [taps of a row]
//   All passes walk rows of pixels. For one row, a Tap is a weight vector and a row of the other map: pixel t of
//   this row meets pixel first + t * step of the other. Forward: step = stride. Data gradient: the pixels that share a
//   remainder modulo the stride see the same taps, so they form a row of their own with step 1. This is the gather form:
//   every pixel is written once, no zeros are multiplied, nothing is added by two threads.
//   Pixels for which every tap is inside form the interior, done four at a time; the few others check each tap.
// Note [columns once]
//   The taps of one row of a small kernel read overlapping pixels. Where kernel width, step and dilation are known to the compiler
//   (kCommonGrids), a block of eight pixels loads, and for bf16 converts, every column of its input once per kernel row instead of
//   once per tap; the sums stay in registers and are added in the same order as above.
#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/depthwise_kernels.h"
#include "ops/depthwise_taps.h"
#include "ops/simd.h"
#include "ops/unroll.h"

namespace limbeck::ops {
namespace {

using simd::kLanes;
using simd::Vec;

template <class T>
struct Tap {
  const float* weight;  // [C]
  const T* row;         // pixel 0 of the row
  std::int64_t first;   // pixel that meets t = 0; may be negative
};

template <class T>
struct TapList {
  std::array<Tap<T>, kMostDepthwiseTaps> taps;
  std::size_t count = 0;
  void add(const float* weight, const T* row, std::int64_t first) { taps[count++] = {weight, row, first}; }
};

template <class T>
struct RowPass {
  std::int64_t channels, step, other_width;
  T* y;                 // pixel t is y + t * y_step
  std::int64_t y_step;  // in elements
  const float* bias;    // [C] or null
  const T* residual;    // as y, or null
  Activation act;
};

/// Four pixels (or one) for the channels from c on; `count` < kLanes channels are at hand for the last vector.
template <int Pixels, bool Partial, class T>
[[gnu::always_inline]] inline void accumulate(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t,
                                              std::int64_t c, std::int64_t count) {
  const auto get = [count](const auto* p) { return Partial ? simd::load_some(p, count) : simd::load(p); };
  Vec sum[Pixels];
  for (auto& s : sum) s = pass.bias != nullptr ? get(pass.bias + c) : Vec{};
  for (std::size_t k = 0; k < list.count; ++k) {
    const Tap<T>& tap = list.taps[k];
    const Vec weight = get(tap.weight + c);
    const T* x = tap.row + (tap.first + t * pass.step) * pass.channels + c;
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

template <int Pixels, class T>
void pixels(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t) {
  std::int64_t c = 0;
  for (; c + kLanes <= pass.channels; c += kLanes) accumulate<Pixels, false>(pass, list, t, c, kLanes);
  if (c < pass.channels) accumulate<Pixels, true>(pass, list, t, c, pass.channels - c);
}

/// A pixel for which some taps may be outside.
template <class T>
void border_pixel(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t) {
  TapList<T> some;
  for (std::size_t k = 0; k < list.count; ++k) {
    const std::int64_t at = list.taps[k].first + t * pass.step;
    if (at >= 0 && at < pass.other_width) some.taps[some.count++] = list.taps[k];
  }
  pixels<1>(pass, some, t);
}

/// Writes pixels t .. stop-1 of a row.
template <class T>
void run_any_pixels(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t, std::int64_t stop) {
  std::int64_t begin = t;
  std::int64_t end = stop;
  for (std::size_t k = 0; k < list.count; ++k) {
    const auto [b, e] = depthwise_tap_range(list.taps[k].first, pass.step, pass.other_width);
    begin = std::max(begin, b);
    end = std::min(end, e);
  }
  begin = std::min(begin, stop);
  end = std::max(begin, end);
  for (; t < begin; ++t) border_pixel(pass, list, t);
  for (; t + 4 <= end; t += 4) pixels<4>(pass, list, t);
  for (; t < end; ++t) pixels<1>(pass, list, t);
  for (; t < stop; ++t) border_pixel(pass, list, t);
}

// --- Note [columns once] --------------------------------------------------------------------------------------------

/// The taps of a row of the kernel are `taps` neighbours in the list, and meet pixels `spacing` apart.
struct Grid {
  std::int64_t taps, step, spacing;
  bool operator==(const Grid&) const = default;
};
constexpr auto kCommonGrids = std::to_array<Grid>({{3, 1, 1}, {3, 2, 1}, {3, 1, 2}, {3, 1, 4}, {5, 1, 1}, {2, 1, 1}});
constexpr std::int64_t kBlock = 8;  // pixels of a row

/// Which columns of a block lie outside of the map: as many as "same" padding has.
enum Cut : unsigned { kNoCut = 0, kLeftCut = 1, kRightCut = 2, kBothCut = 3 };

constexpr std::int64_t grid_reach(const Grid& grid) { return (grid.taps - 1) * grid.spacing; }
/// Columns that a block reads.
constexpr std::int64_t grid_columns(const Grid& grid) { return (kBlock - 1) * grid.step + grid_reach(grid) + 1; }

/// A block of pixels from t on, kLanes channels from c on.
template <std::size_t G, Cut cut, class T>
[[gnu::always_inline]] inline void accumulate_grid(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t,
                                                   std::int64_t c) {
  constexpr Grid grid = kCommonGrids[G];
  constexpr auto kTaps = static_cast<std::size_t>(grid.taps);
  constexpr std::int64_t kFirst = (cut & kLeftCut) != 0 ? grid_reach(grid) / 2 : 0;
  constexpr std::int64_t kLast = grid_columns(grid) - ((cut & kRightCut) != 0 ? grid_reach(grid) / 2 : 0);
  std::array<Vec, kBlock> sum;
  sum.fill(pass.bias != nullptr ? simd::load(pass.bias + c) : Vec{});
  for (std::size_t k = 0; k < list.count; k += kTaps) {
    std::array<Vec, kTaps> weight;
    for (std::size_t s = 0; s < kTaps; ++s) weight[s] = simd::load(list.taps[k + s].weight + c);
    const T* x = list.taps[k].row + (list.taps[k].first + t * grid.step) * pass.channels + c;
    const auto column = [&]<std::int64_t J>(std::integral_constant<std::int64_t, J>) LIMBECK_INLINE_LAMBDA {
      if constexpr (J >= kFirst && J < kLast) {
        const Vec value = simd::load(x + J * pass.channels);
        for_each_constant<grid.taps>(
            [&]<std::int64_t S>(std::integral_constant<std::int64_t, S>) LIMBECK_INLINE_LAMBDA {
              constexpr std::int64_t kAt = J - S * grid.spacing;
              if constexpr (kAt >= 0 && kAt % grid.step == 0 && kAt / grid.step < kBlock) {
                sum[static_cast<std::size_t>(kAt / grid.step)] += weight[static_cast<std::size_t>(S)] * value;
              }
            });
      }
    };
    for_each_constant<grid_columns(grid)>(column);
  }
  for (std::int64_t i = 0; i < kBlock; ++i) {
    simd::store(pass.y + (t + i) * pass.y_step + c, simd::activate(pass.act, sum[static_cast<std::size_t>(i)]));
  }
}

template <std::size_t G, Cut cut, class T>
void grid_block(const RowPass<T>& pass, const TapList<T>& list, std::int64_t t) {
  // The last vector may overlap the one before it: the same numbers are written again.
  for (std::int64_t c = 0; c < pass.channels; c += kLanes) {
    accumulate_grid<G, cut>(pass, list, t, std::min(c, pass.channels - kLanes));
  }
}

template <std::size_t G, class T>
void run_grid_row(const RowPass<T>& pass, const TapList<T>& list, std::int64_t count) {
  constexpr Grid grid = kCommonGrids[G];
  constexpr std::int64_t kPad = grid_reach(grid) / 2;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t t = std::min(begin, count - kBlock);
    const std::int64_t left = std::max<std::int64_t>(0, -(list.taps[0].first + t * grid.step));
    const std::int64_t right =
        std::max<std::int64_t>(0, list.taps[0].first + t * grid.step + grid_columns(grid) - pass.other_width);
    if (left == 0 && right == 0) {
      grid_block<G, kNoCut>(pass, list, t);
    } else if (left == kPad && right == 0) {
      grid_block<G, kLeftCut>(pass, list, t);
    } else if (left == 0 && right == kPad) {
      grid_block<G, kRightCut>(pass, list, t);
    } else if (left == kPad && right == kPad) {
      grid_block<G, kBothCut>(pass, list, t);
    } else {
      run_any_pixels(pass, list, t, t + kBlock);
    }
  }
}

/// Writes pixels 0 .. count-1 of a row.
template <class T>
void run_row(const RowPass<T>& pass, const TapList<T>& list, Grid grid, std::int64_t count) {
  // Writing a pixel twice is harmless unless a residual is added that may be the same memory.
  if (pass.channels < kLanes || pass.residual != nullptr || count < kBlock || list.count == 0) {
    return run_any_pixels(pass, list, 0, count);
  }
  bool done = false;
  for_each_constant<kCommonGrids.size()>([&]<std::int64_t G>(std::integral_constant<std::int64_t, G>) {
    constexpr auto g = static_cast<std::size_t>(G);
    if (done || grid != kCommonGrids[g]) return;
    run_grid_row<g>(pass, list, count);
    done = true;
  });
  if (!done) run_any_pixels(pass, list, 0, count);
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

template <class T>
void forward(const TensorView& x, const float* weights, const Shape& w, const TensorView& bias,
             const TensorView& residual, Activation act, const Conv2dOptions& o, const DepthwiseRows& rows,
             const TensorView& y) {
  const std::int64_t channels = x.c();
  const std::int64_t row_size = y.w() * channels;
  const auto run = [&](std::int64_t row) {
    const std::int64_t n = row / y.h();
    const std::int64_t p = row % y.h() + rows.y_first;
    TapList<T> list;
    for (std::int64_t r = 0; r < w[2]; ++r) {
      const std::int64_t h = p * o.stride[0] - o.padding[0] + r * o.dilation[0];
      if (h < 0 || h >= rows.x_height) continue;
      const T* source = x.ptr<T>() + (n * x.h() + h - rows.x_first) * x.w() * channels;
      for (std::int64_t s = 0; s < w[3]; ++s) {
        list.add(weights + (r * w[3] + s) * channels, source, s * o.dilation[1] - o.padding[1]);
      }
    }
    const RowPass<T> pass{channels,
                          o.stride[1],
                          x.w(),
                          y.ptr<T>() + row * row_size,
                          channels,
                          bias.defined() ? bias.ptr<float>() : nullptr,
                          residual.defined() ? residual.ptr<T>() + row * row_size : nullptr,
                          act};
    run_row(pass, list, {w[3], o.stride[1], o.dilation[1]}, y.w());
  };
  parallel_for(y.n() * y.h(), std::max<std::int64_t>(1, kDepthwiseGrain / row_size), [&](auto begin, auto end) {
    for (std::int64_t row = begin; row < end; ++row) run(row);
  });
}

template <class T>
void backward_data(const TensorView& gy, const TensorView& w, const TensorView& bias, const Conv2dOptions& o,
                   const TensorView& gx) {
  const std::int64_t channels = gx.c();
  const Workspace weights(static_cast<std::size_t>(w.numel()) * sizeof(float));
  reorder_weights(w, weights.as<float>());
  const std::int64_t row_size = gx.w() * channels;
  // Pixels phase, phase + stride, ... of a row: they see the same taps.
  const auto run = [&](std::int64_t row, std::int64_t phase) {
    const std::int64_t n = row / gx.h();
    const std::int64_t h = row % gx.h();
    TapList<T> list;
    std::int64_t taps = 0;  // per kernel row
    for (std::int64_t r = 0; r < w.h(); ++r) {
      const std::int64_t up = h + o.padding[0] - r * o.dilation[0];  // = output row * stride
      if (up < 0 || up % o.stride[0] != 0 || up / o.stride[0] >= gy.h()) continue;
      const T* source = gy.ptr<T>() + (n * gy.h() + up / o.stride[0]) * gy.w() * channels;
      taps = 0;
      for (std::int64_t s = w.w() - 1; s >= 0; --s) {  // from left to right in gy
        const std::int64_t left = phase + o.padding[1] - s * o.dilation[1];
        if (floor_mod(left, o.stride[1]) != 0) continue;
        list.add(weights.as<float>() + (r * w.w() + s) * channels, source, left / o.stride[1]);
        ++taps;
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
    const std::int64_t spacing = taps > 1 ? list.taps[1].first - list.taps[0].first : 1;
    run_row(pass, list, {taps, 1, spacing}, (gx.w() - phase + o.stride[1] - 1) / o.stride[1]);
  };
  parallel_for(gx.n() * gx.h(), std::max<std::int64_t>(1, kDepthwiseGrain / row_size), [&](auto begin, auto end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t phase = 0; phase < std::min(o.stride[1], gx.w()); ++phase) run(row, phase);
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
  check_depthwise_taps(w);
  reorder_weights(w, packed);
}

void depthwise_rows(const TensorView& x, const float* packed, const Shape& w, const TensorView& bias,
                    const TensorView& residual, Activation act, const Conv2dOptions& options, const DepthwiseRows& rows,
                    const TensorView& y) {
  visit_fast_dtype("depthwise_conv2d", x.dtype,
                   [&](auto zero) { forward<decltype(zero)>(x, packed, w, bias, residual, act, options, rows, y); });
}

void depthwise_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                 const Conv2dOptions& options, const TensorView& gx) {
  check_depthwise_taps(w);
  visit_fast_dtype("depthwise_conv2d", gy.dtype,
                   [&](auto zero) { backward_data<decltype(zero)>(gy, w, bias, options, gx); });
}

}  // namespace limbeck::ops
