// What this is: fast batch norm on the CPU, f32 and bf16, channels-last: forward. Every pass touches each element once and is
//   bound by memory, so what counts is the number of passes: 2 reads and 1 write forward, 4 reads and 1 write backward.
// Read next: ops/batch_norm_ref.cpp for the formulas, ops/batch_norm_lanes.h for rows and blocks, ops/batch_norm_backward_cpu.cpp.
//
// Note [shifted sums]
//   sum(x^2)/M - mean^2 cancels when the mean is large. Each block therefore sums d = x - shift and d^2, where shift is
//   the mean of the block's first rows; |mean - shift| is then of the order of the standard deviation.
#include <algorithm>

#include "ops/batch_norm_lanes.h"

namespace limbeck::ops {
namespace {

using namespace batch_norm_lanes;

constexpr std::int64_t kShiftRows = 32;

/// s1 += x - shift, s2 += (x - shift)^2 over `rows` rows of `lanes` elements. Four rows at a time: the sums are then
/// loaded and stored once per four elements.
template <class T>
void add_shifted(const T* __restrict x, std::int64_t rows, std::int64_t lanes, const float* __restrict shift,
                 float* __restrict s1, float* __restrict s2) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4, x += 4 * lanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < lanes; ++l) {
      const float a = static_cast<float>(x[l]) - shift[l];
      const float b = static_cast<float>(x[l + lanes]) - shift[l];
      const float c = static_cast<float>(x[l + 2 * lanes]) - shift[l];
      const float d = static_cast<float>(x[l + 3 * lanes]) - shift[l];
      s1[l] += (a + b) + (c + d);
      s2[l] += (a * a + b * b) + (c * c + d * d);
    }
  }
  for (; r < rows; ++r, x += lanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < lanes; ++l) {
      const float a = static_cast<float>(x[l]) - shift[l];
      s1[l] += a;
      s2[l] += a * a;
    }
  }
}

/// Mean of the first rows of a block, per channel and repeated over the lanes.
template <class T>
void find_shift(const T* x, std::int64_t rows, const Plan& p, float* shift) {
  rows = std::min(rows, kShiftRows);
  const float weight = 1.0F / static_cast<float>(rows);
  std::fill_n(shift, p.channels, 0.0F);
  for (std::int64_t r = 0; r < rows; ++r) {
#pragma omp simd
    for (std::int64_t c = 0; c < p.channels; ++c) shift[c] += static_cast<float>(x[r * p.channels + c]) * weight;
  }
  for (std::int64_t f = 1; f < p.fold; ++f) std::copy_n(shift, p.channels, shift + f * p.channels);
}

/// Mean (sums[0..C)) and sum of squared deviations (sums[C..2C)) of one block.
template <class T>
void block_moments(const T* data, const Plan& p, std::int64_t block, float* scratch, double* sums) {
  const Span span(p, block);
  const T* x = data + span.begin;
  float* shift = scratch;
  float* s1 = scratch + p.lanes;
  float* s2 = s1 + p.lanes;
  const std::int64_t rows = (p.first(block + 1) - span.begin) / p.channels;
  find_shift(x, rows, p, shift);
  std::fill_n(s1, 2 * p.lanes, 0.0F);
  std::fill_n(sums, 2 * p.channels, 0.0);
  for (std::int64_t r = 0; r < span.whole; r += kRun) {
    const std::int64_t run = std::min(kRun, span.whole - r);
    add_shifted(x + r * p.lanes, run, p.lanes, shift, s1, s2);
    flush(p, s1, s2, sums);
  }
  add_shifted(x + span.whole * p.lanes, 1, span.tail, shift, s1, s2);
  flush(p, s1, s2, sums);
  const double count = static_cast<double>(rows);
  for (std::int64_t c = 0; c < p.channels; ++c) {
    const double d = sums[c] / count;
    sums[c] = static_cast<double>(shift[c]) + d;
    sums[p.channels + c] = std::max(0.0, sums[p.channels + c] - count * d * d);
  }
}

template <Activation kAct, bool kResidual, class T>
void apply_row(const T* __restrict x, const T* __restrict residual, std::int64_t lanes, const float* __restrict center,
               const float* __restrict scale, const float* __restrict shift, float* __restrict y) {
#pragma omp simd
  for (std::int64_t l = 0; l < lanes; ++l) {
    float pre = (static_cast<float>(x[l]) - center[l]) * scale[l] + shift[l];
    if constexpr (kResidual) pre += static_cast<float>(residual[l]);
    y[l] = activate(kAct, pre);
  }
}

}  // namespace

void batch_norm_moments_cpu(const TensorView& x, const TensorView& moments) {
  const Plan p(x);
  const Workspace partial(static_cast<std::size_t>(p.blocks * 2 * p.channels) * sizeof(double));
  visit_fast_dtype("batch_norm", x.dtype, [&]<class T>(T) {
    parallel_for(p.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      const Workspace scratch(static_cast<std::size_t>(3 * p.lanes) * sizeof(float));
      for (std::int64_t b = begin; b < end; ++b) {
        block_moments(x.ptr<T>(), p, b, scratch.as<float>(), partial.as<double>() + b * 2 * p.channels);
      }
    });
  });
  // Chan, Golub and LeVeque 1979: merges the moments of two sets.
  double* __restrict mean = moments.ptr<double>();
  double* __restrict m2 = mean + p.channels;
  std::copy_n(partial.as<double>(), 2 * p.channels, mean);
  for (std::int64_t b = 1; b < p.blocks; ++b) {
    const double* __restrict part = partial.as<double>() + b * 2 * p.channels;
    const double before = static_cast<double>(p.first(b) / p.channels);
    const double here = static_cast<double>((p.first(b + 1) - p.first(b)) / p.channels);
    const double share = here / (before + here);
    for (std::int64_t c = 0; c < p.channels; ++c) {
      const double d = part[c] - mean[c];
      mean[c] += d * share;
      m2[c] += part[p.channels + c] + d * d * before * share;
    }
  }
  const double count = static_cast<double>(p.rows);
  for (std::int64_t c = 0; c < p.channels; ++c) m2[c] /= count;
}

void batch_norm_apply_cpu(const TensorView& x, const TensorView& residual, const TensorView& coefficients,
                          Activation act, const TensorView& y) {
  const Plan p(x);
  const Workspace lanes(static_cast<std::size_t>(3 * p.lanes) * sizeof(float));
  float* center = lanes.as<float>();
  float* scale = center + p.lanes;
  float* shift = scale + p.lanes;
  repeat(coefficients, kCenter, p, center);
  repeat(coefficients, kScale, p, scale);
  repeat(coefficients, kShift, p, shift);
  const auto run = [&]<Activation kAct, bool kResidual, class T>(T) {
    write_rows<T>(p, y, [&](std::int64_t first, std::int64_t lane_count, float* row) {
      apply_row<kAct, kResidual>(x.ptr<T>() + first, at<T>(residual, first), lane_count, center, scale, shift, row);
    });
  };
  visit_fast_dtype("batch_norm", x.dtype, [&]<class T>(T t) {
    visit_activation(act, [&]<Activation kAct>() {
      if (residual.defined()) {
        run.template operator()<kAct, true>(t);
      } else {
        run.template operator()<kAct, false>(t);
      }
    });
  });
}

}  // namespace limbeck::ops
