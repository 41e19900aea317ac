// What this is: fast batch norm on the CPU, f32 and bf16, channels-last. Every pass touches each element once and is
//   bound by memory, so what counts is the number of passes: 2 reads and 1 write forward, 4 reads and 1 write backward.
// Read next: ops/batch_norm_ref.cpp for the formulas.
//
// Note [lanes]
//   A channels-last map is a matrix of N*H*W rows and C columns. With 11 or 24 columns the loop over a row would be too
//   short for vector registers, so `fold` neighbouring rows are treated as one row of fold*C lanes, and the per-channel
//   numbers are repeated fold times. The rows left over fill the first lanes of a last, shorter row.
// Note [blocks]
//   Rows are cut into blocks by the problem size alone. Each block leaves its sums in its own place, and they are added
//   in block order, so results do not depend on the number of threads.
// Note [shifted sums]
//   sum(x^2)/M - mean^2 cancels when the mean is large. Each block therefore sums d = x - shift and d^2, where shift is
//   the mean of the block's first rows; |mean - shift| is then of the order of the standard deviation. f32 sums run
//   over at most kRun lane rows before they move into f64.
#include <algorithm>
#include <numeric>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/batch_norm_kernels.h"
#include "ops/row_store.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kRun = 128;
constexpr std::int64_t kShiftRows = 32;

struct Plan {
  std::int64_t rows, channels, fold, lanes, blocks;

  explicit Plan(const TensorView& x) : rows(x.numel() / x.shape[1]), channels(x.shape[1]), fold(1) {
    constexpr std::int64_t kVector = 32;  // bf16 lanes of a 512-bit register
    constexpr std::int64_t kEnoughLanes = 192;
    constexpr std::int64_t kMostLanes = 1024;
    constexpr std::int64_t kBlockElements = 32768;
    fold = kVector / std::gcd(channels, kVector);
    if (fold * channels > kMostLanes) fold = 1;
    while (fold * channels < kEnoughLanes) fold *= 2;
    lanes = fold * channels;
    blocks = std::clamp<std::int64_t>(rows / fold, 1, reduction_blocks(x.numel(), kBlockElements));
  }
  /// First element of block b: the start of a lane row, so that streaming stores are aligned.
  [[nodiscard]] std::int64_t first(std::int64_t b) const {
    return b == blocks ? rows * channels : rows / fold * b / blocks * lanes;
  }
};

/// A block: `whole` lane rows from element `begin` on, followed by `tail` lanes.
struct Span {
  std::int64_t begin, whole, tail;
  Span(const Plan& p, std::int64_t block)
      : begin(p.first(block)),
        whole((p.first(block + 1) - begin) / p.lanes),
        tail(p.first(block + 1) - begin - whole * p.lanes) {}
};

/// Repeats row r of a [R,C] f32 tensor over the lanes.
void repeat(const TensorView& t, std::int64_t r, const Plan& p, float* out) {
  const float* row = t.ptr<float>() + r * p.channels;
  for (std::int64_t f = 0; f < p.fold; ++f) std::copy_n(row, p.channels, out + f * p.channels);
}

/// Adds the lanes of s1 and s2 to the channels of sums[0..C) and sums[C..2C), and clears them.
void flush(const Plan& p, float* __restrict s1, float* __restrict s2, double* __restrict sums) {
  for (std::int64_t f = 0; f < p.fold; ++f) {
    for (std::int64_t c = 0; c < p.channels; ++c) {
      sums[c] += static_cast<double>(s1[f * p.channels + c]);
      sums[p.channels + c] += static_cast<double>(s2[f * p.channels + c]);
    }
  }
  std::fill_n(s1, p.lanes, 0.0F);
  std::fill_n(s2, p.lanes, 0.0F);
}

/// Writes `output` row by row; compute(first element, number of lanes, float* row) fills one lane row.
template <class T, class Compute>
void write_rows(const Plan& p, const TensorView& output, const Compute& compute) {
  const RowStore<T> store(output);
  parallel_for(p.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace buffer(static_cast<std::size_t>(row_store_floats(p.lanes)) * sizeof(float));
    for (std::int64_t first = p.first(begin); first < p.first(end); first += p.lanes) {
      const std::int64_t lane_count = std::min(p.lanes, p.first(end) - first);
      T* out = output.ptr<T>() + first;
      float* row = store.target(out, buffer.as<float>());
      compute(first, lane_count, row);
      store.finish(row, out, lane_count);
    }
    store.fence();
  });
}

// --- forward: statistics ------------------------------------------------------------------------------------------

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

// --- forward: y ---------------------------------------------------------------------------------------------------

/// The activation as a compile-time constant, so that the compiler sees a loop without branches.
template <class F>
void visit_activation(Activation act, F&& f) {
  switch (act) {
    case Activation::kNone: return f.template operator()<Activation::kNone>();
    case Activation::kRelu: return f.template operator()<Activation::kRelu>();
    case Activation::kRelu6: return f.template operator()<Activation::kRelu6>();
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

// --- backward -----------------------------------------------------------------------------------------------------

/// Per-lane numbers of the backward passes. gx = scale g + slope (x - center) + offset.
struct Lanes {
  const float *center, *scale, *shift, *slope, *offset;
};

/// Where the slope of the activation comes from.
enum class MaskFrom : std::uint8_t { kX, kY };

/// Whether the activation lets the gradient pass. The bitwise "and" keeps loops free of branches.
template <Activation kAct>
bool passes(float pre) {
  if constexpr (kAct == Activation::kNone) return true;
  if constexpr (kAct == Activation::kRelu) return pre > 0.0F;
  return static_cast<bool>(static_cast<int>(pre > 0.0F) & static_cast<int>(pre < 6.0F));
}

/// The value or zero.
inline float keep_if(bool keep, float value) { return keep ? value : 0.0F; }
inline bfloat16 keep_if(bool keep, bfloat16 value) {
  // On the bits, because a choice between two structs is not vectorised.
  value.bits = keep ? value.bits : std::uint16_t{0};
  return value;
}

/// s1 += g, s2 += g (x - center) over kRows (1 or 4) rows of `lanes` elements. g is gy where the activation passes and
/// 0 elsewhere.
template <std::int64_t kRows, Activation kAct, MaskFrom kFrom, bool kStore, class T>
void add_gradient(const T* __restrict gy, const T* __restrict x, const T* __restrict y, std::int64_t lanes,
                  const Lanes& k, T* __restrict store, float* __restrict s1, float* __restrict s2) {
  const float* __restrict center = k.center;
  const float* __restrict scale = k.scale;
  const float* __restrict shift = k.shift;
#pragma omp simd
  for (std::int64_t l = 0; l < lanes; ++l) {
    float sum = 0.0F;
    float sum_d = 0.0F;
    const auto add_row = [&](std::int64_t i) {
      const float d = static_cast<float>(x[i]) - center[l];
      const float pre = kFrom == MaskFrom::kY ? static_cast<float>(y[i]) : d * scale[l] + shift[l];
      const float g = keep_if(passes<kAct>(pre), static_cast<float>(gy[i]));
      if constexpr (kStore) store[i] = keep_if(passes<kAct>(pre), gy[i]);
      sum += g;
      sum_d += g * d;
    };
    // Spelled out: a loop in here would keep the compiler from vectorising the one outside.
    add_row(l);
    if constexpr (kRows == 4) {
      add_row(l + lanes);
      add_row(l + 2 * lanes);
      add_row(l + 3 * lanes);
    }
    s1[l] += sum;
    s2[l] += sum_d;
  }
}

template <Activation kAct, MaskFrom kFrom, class T>
void gradient_row(const T* __restrict gy, const T* __restrict x, const T* __restrict y, std::int64_t lanes,
                  const Lanes& k, float* __restrict gx) {
  const float* __restrict center = k.center;
  const float* __restrict scale = k.scale;
  const float* __restrict shift = k.shift;
  const float* __restrict slope = k.slope;
  const float* __restrict offset = k.offset;
#pragma omp simd
  for (std::int64_t l = 0; l < lanes; ++l) {
    const float d = static_cast<float>(x[l]) - center[l];
    const float pre = kFrom == MaskFrom::kY ? static_cast<float>(y[l]) : d * scale[l] + shift[l];
    const float g = keep_if(passes<kAct>(pre), static_cast<float>(gy[l]));
    gx[l] = g * scale[l] + (d * slope[l] + offset[l]);
  }
}

/// The same with constant statistics: slope = offset = 0, and x is needed for nothing but the mask.
template <Activation kAct, MaskFrom kFrom, class T>
void frozen_gradient_row(const T* __restrict gy, const T* __restrict x, const T* __restrict y, std::int64_t lanes,
                         const Lanes& k, float* __restrict gx) {
  const float* __restrict center = k.center;
  const float* __restrict scale = k.scale;
  const float* __restrict shift = k.shift;
#pragma omp simd
  for (std::int64_t l = 0; l < lanes; ++l) {
    float pre = 0.0F;
    if constexpr (kAct != Activation::kNone) {
      pre = kFrom == MaskFrom::kY ? static_cast<float>(y[l])
                                  : (static_cast<float>(x[l]) - center[l]) * scale[l] + shift[l];
    }
    gx[l] = keep_if(passes<kAct>(pre), static_cast<float>(gy[l])) * scale[l];
  }
}

/// Calls f<activation, mask source>().
template <class F>
void visit_mask(Activation act, bool from_y, F&& f) {
  visit_activation(act, [&]<Activation kAct>() {
    if (kAct != Activation::kNone && from_y) {
      f.template operator()<kAct, MaskFrom::kY>();
    } else {
      f.template operator()<kAct, MaskFrom::kX>();
    }
  });
}

/// A row pointer that stays null where the tensor is undefined.
template <class T>
T* at(const TensorView& v, std::int64_t element) {
  return v.defined() ? v.ptr<T>() + element : nullptr;
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

void batch_norm_sums_cpu(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& coefficients,
                         Activation act, const TensorView& masked, const TensorView& sums) {
  const Plan p(x);
  const Workspace partial(static_cast<std::size_t>(p.blocks * 2 * p.channels) * sizeof(double));
  const Workspace repeated(static_cast<std::size_t>(3 * p.lanes) * sizeof(float));
  float* center = repeated.as<float>();
  repeat(coefficients, kCenter, p, center);
  repeat(coefficients, kScale, p, center + p.lanes);
  repeat(coefficients, kShift, p, center + 2 * p.lanes);
  const Lanes k{center, center + p.lanes, center + 2 * p.lanes, nullptr, nullptr};

  const auto run = [&]<Activation kAct, MaskFrom kFrom, bool kStore, class T>(T) {
    parallel_for(p.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      const Workspace scratch(static_cast<std::size_t>(2 * p.lanes) * sizeof(float));
      float* s1 = scratch.as<float>();
      float* s2 = s1 + p.lanes;
      std::fill_n(s1, 2 * p.lanes, 0.0F);
      for (std::int64_t b = begin; b < end; ++b) {
        const Span span(p, b);
        double* out = partial.as<double>() + b * 2 * p.channels;
        std::fill_n(out, 2 * p.channels, 0.0);
        const auto add = [&]<std::int64_t kRows>(std::int64_t first, std::int64_t lane_count) {
          add_gradient<kRows, kAct, kFrom, kStore>(gy.ptr<T>() + first, x.ptr<T>() + first, at<T>(y, first), lane_count,
                                                   k, at<T>(masked, first), s1, s2);
        };
        std::int64_t first = span.begin;
        std::int64_t rows = span.whole;
        for (; rows >= 4; rows -= 4, first += 4 * p.lanes) {
          add.template operator()<4>(first, p.lanes);
          if (rows % kRun < 4) flush(p, s1, s2, out);
        }
        for (; rows > 0; --rows, first += p.lanes) add.template operator()<1>(first, p.lanes);
        add.template operator()<1>(first, span.tail);
        flush(p, s1, s2, out);
      }
    });
  };
  visit_fast_dtype("batch_norm", x.dtype, [&]<class T>(T t) {
    visit_mask(act, y.defined(), [&]<Activation kAct, MaskFrom kFrom>() {
      if (masked.defined()) {
        run.template operator()<kAct, kFrom, true>(t);
      } else {
        run.template operator()<kAct, kFrom, false>(t);
      }
    });
  });

  double* __restrict s = sums.ptr<double>();
  std::fill_n(s, 2 * p.channels, 0.0);
  for (std::int64_t b = 0; b < p.blocks; ++b) {
    const double* __restrict part = partial.as<double>() + b * 2 * p.channels;
    for (std::int64_t i = 0; i < 2 * p.channels; ++i) s[i] += part[i];
  }
  // So far row 1 is sum(g (x - center)); xhat = (x - center - residue) inv_std.
  const float* c5 = coefficients.ptr<float>();
  for (std::int64_t c = 0; c < p.channels; ++c) {
    const double residue = static_cast<double>(c5[kResidue * p.channels + c]);
    s[p.channels + c] = (s[p.channels + c] - residue * s[c]) * static_cast<double>(c5[kInvStd * p.channels + c]);
  }
}

void batch_norm_gradient_cpu(const TensorView& gy, const TensorView& x, const TensorView& y,
                             const TensorView& coefficients, Activation act, const TensorView& sums, double count,
                             const TensorView& gx) {
  const Plan p(gx);
  const Workspace repeated(static_cast<std::size_t>(5 * p.lanes) * sizeof(float));
  float* center = repeated.as<float>();
  float* slope = center + 3 * p.lanes;
  float* offset = slope + p.lanes;
  repeat(coefficients, kCenter, p, center);
  repeat(coefficients, kScale, p, center + p.lanes);
  repeat(coefficients, kShift, p, center + 2 * p.lanes);
  if (sums.defined()) {
    // gx = scale (g - s0/count - xhat s1/count), xhat = (x - center - residue) inv_std
    const float* c5 = coefficients.ptr<float>();
    const double* s = sums.ptr<double>();
    for (std::int64_t l = 0; l < p.lanes; ++l) {
      const std::int64_t c = l % p.channels;
      const auto number = [&](BatchNormRow r) { return static_cast<double>(c5[r * p.channels + c]); };
      const double along_x = -number(kScale) * number(kInvStd) * s[p.channels + c] / count;
      slope[l] = static_cast<float>(along_x);
      offset[l] = static_cast<float>(-number(kScale) * s[c] / count - along_x * number(kResidue));
    }
  }
  const Lanes k{center, center + p.lanes, center + 2 * p.lanes, slope, offset};

  const auto run = [&]<Activation kAct, MaskFrom kFrom, class T>(T) {
    const auto kernel = sums.defined() ? gradient_row<kAct, kFrom, T> : frozen_gradient_row<kAct, kFrom, T>;
    write_rows<T>(p, gx, [&](std::int64_t first, std::int64_t lane_count, float* row) {
      kernel(gy.ptr<T>() + first, at<T>(x, first), at<T>(y, first), lane_count, k, row);
    });
  };
  visit_fast_dtype("batch_norm", gy.dtype, [&]<class T>(T t) {
    visit_mask(act, y.defined(), [&]<Activation kAct, MaskFrom kFrom>() { run.template operator()<kAct, kFrom>(t); });
  });
}

void batch_norm_mask_cpu(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g) {
  constexpr std::int64_t kGrain = 32768;
  visit_fast_dtype("batch_norm", gy.dtype, [&]<class T>(T) {
    visit_activation(act, [&]<Activation kAct>() {
      parallel_for(gy.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        const T* __restrict in = gy.ptr<T>();
        const T* __restrict out_y = y.ptr<T>();
        T* __restrict out = g.ptr<T>();
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          out[i] = keep_if(passes<kAct>(static_cast<float>(out_y[i])), in[i]);
        }
      });
    });
  });
}

}  // namespace limbeck::ops
