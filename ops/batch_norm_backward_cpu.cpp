// What this is: fast batch norm on the CPU, f32 and bf16, channels-last: backward. The sums over g and g (x - center) in one pass, the
//   gradient in another; the activation's slope comes from x or from y.
// Read next: ops/batch_norm_ref.cpp for the formulas, ops/batch_norm_lanes.h for rows and blocks.
#include <algorithm>

#include "ops/batch_norm_lanes.h"

namespace limbeck::ops {
namespace {

using namespace batch_norm_lanes;

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

}  // namespace

void batch_norm_sums_cpu(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& coefficients,
                         Activation act, const TensorView& masked, const TensorView& sums, const TensorView& gbeta,
                         const TensorView& ggamma) {
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
    if (gbeta.defined()) gbeta.ptr<float>()[c] = static_cast<float>(s[c]);
    if (ggamma.defined()) ggamma.ptr<float>()[c] = static_cast<float>(s[p.channels + c]);
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
