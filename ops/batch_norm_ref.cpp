// What this is: batch norm as plain loops in the order of the formulas, float and double, any strides.
// Read next: ops/batch_norm_cpu.cpp.
#include <cmath>

#include "ops/batch_norm_kernels.h"
#include "ops/map_view.h"

namespace limbeck::ops {
namespace {

/// A number of a [C] tensor of f32 or f64.
double read(const TensorView& v, std::int64_t c) {
  return v.dtype == DType::kF64 ? v.at<double>(c) : static_cast<double>(v.at<float>(c));
}

void write(const TensorView& v, std::int64_t c, double value) {
  if (v.dtype == DType::kF64) {
    v.at<double>(c) = value;
  } else {
    v.at<float>(c) = static_cast<float>(value);
  }
}

/// Calls f(n, c, h, w) for every element.
template <class F>
void for_each_element(const TensorView& x, F&& f) {
  for (std::int64_t n = 0; n < x.n(); ++n) {
    for (std::int64_t h = 0; h < x.h(); ++h) {
      for (std::int64_t w = 0; w < x.w(); ++w) {
        for (std::int64_t c = 0; c < x.c(); ++c) f(n, c, h, w);
      }
    }
  }
}

/// gy times the slope of the activation at one element; see BatchNormSumsFn.
template <class T>
T masked_gradient(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& k, Activation act,
                  std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  const T g = gy.at<T>(n, c, h, w);
  if (act == Activation::kNone) return g;
  if (y.defined()) return g * activation_slope(act, y.at<T>(n, c, h, w));
  const T pre = (x.at<T>(n, c, h, w) - k.at<T>(kCenter, c)) * k.at<T>(kScale, c) + k.at<T>(kShift, c);
  return g * activation_slope(act, pre);
}

template <class T>
T normalised(const TensorView& x, const TensorView& k, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return (x.at<T>(n, c, h, w) - k.at<T>(kCenter, c) - k.at<T>(kResidue, c)) * k.at<T>(kInvStd, c);
}

}  // namespace

void batch_norm_moments_ref(const TensorView& x_any, const TensorView& moments) {
  const TensorView x = as_map(x_any);
  const double count = static_cast<double>(x.numel() / x.c());
  visit_reference_dtype("batch_norm", x.dtype, [&]<class T>(T) {
    for (std::int64_t i = 0; i < 2 * x.c(); ++i) moments.ptr<double>()[i] = 0.0;
    for_each_element(x,
                     [&](auto n, auto c, auto h, auto w) { moments.at<double>(0, c) += x.at<T>(n, c, h, w) / count; });
    for_each_element(x, [&](auto n, auto c, auto h, auto w) {
      const double d = x.at<T>(n, c, h, w) - moments.at<double>(0, c);
      moments.at<double>(1, c) += d * d / count;
    });
  });
}

void batch_norm_coefficients_ref(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                 const TensorView& beta, double eps, const TensorView& coefficients) {
  visit_reference_dtype("batch_norm", coefficients.dtype, [&]<class T>(T) {
    for (std::int64_t c = 0; c < mean.shape[0]; ++c) {
      const double exact = read(mean, c);
      const T center = static_cast<T>(exact);
      const double residue = exact - static_cast<double>(center);
      const double inv_std = 1.0 / std::sqrt(read(var, c) + eps);
      const double scale = (gamma.defined() ? read(gamma, c) : 1.0) * inv_std;
      coefficients.at<T>(kCenter, c) = center;
      coefficients.at<T>(kResidue, c) = static_cast<T>(residue);
      coefficients.at<T>(kInvStd, c) = static_cast<T>(inv_std);
      coefficients.at<T>(kScale, c) = static_cast<T>(scale);
      coefficients.at<T>(kShift, c) = static_cast<T>((beta.defined() ? read(beta, c) : 0.0) - residue * scale);
    }
  });
}

void batch_norm_statistics_ref(const TensorView& moments, const BatchNormRunning& running, const TensorView& gamma,
                               const TensorView& beta, double eps, const TensorView& coefficients) {
  const std::int64_t channels = moments.shape[1];
  for (std::int64_t c = 0; c < channels && running.mean.defined(); ++c) {
    const double mean = read(running.mean, c);
    const double var = read(running.var, c);
    write(running.mean, c, mean + running.momentum * (moments.at<double>(0, c) - mean));
    write(running.var, c, var + running.momentum * (running.unbias * moments.at<double>(1, c) - var));
  }
  const auto row = [&](std::int64_t r) {
    return TensorView{moments.ptr<double>() + r * channels, DType::kF64, {channels}, {1}};
  };
  batch_norm_coefficients_ref(row(0), row(1), gamma, beta, eps, coefficients);
}

void batch_norm_apply_ref(const TensorView& x_any, const TensorView& residual_any, const TensorView& k, Activation act,
                          const TensorView& y_any) {
  const TensorView x = as_map(x_any);
  const TensorView residual = as_map(residual_any);
  const TensorView y = as_map(y_any);
  visit_reference_dtype("batch_norm", x.dtype, [&]<class T>(T) {
    for_each_element(x, [&](auto n, auto c, auto h, auto w) {
      T pre = (x.at<T>(n, c, h, w) - k.at<T>(kCenter, c)) * k.at<T>(kScale, c) + k.at<T>(kShift, c);
      if (residual.defined()) pre += residual.at<T>(n, c, h, w);
      y.at<T>(n, c, h, w) = activate(act, pre);
    });
  });
}

void batch_norm_sums_ref(const TensorView& gy_any, const TensorView& x_any, const TensorView& y_any,
                         const TensorView& k, Activation act, const TensorView& masked_any, const TensorView& sums,
                         const TensorView& gbeta, const TensorView& ggamma) {
  const TensorView gy = as_map(gy_any);
  const TensorView x = as_map(x_any);
  const TensorView y = as_map(y_any);
  const TensorView masked = as_map(masked_any);
  visit_reference_dtype("batch_norm", x.dtype, [&]<class T>(T) {
    for (std::int64_t i = 0; i < 2 * x.c(); ++i) sums.ptr<double>()[i] = 0.0;
    for_each_element(x, [&](auto n, auto c, auto h, auto w) {
      const T g = masked_gradient<T>(gy, x, y, k, act, n, c, h, w);
      if (masked.defined()) masked.at<T>(n, c, h, w) = g;
      sums.at<double>(0, c) += g;
      sums.at<double>(1, c) += g * normalised<T>(x, k, n, c, h, w);
    });
  });
  for (std::int64_t c = 0; c < x.c(); ++c) {
    if (gbeta.defined()) write(gbeta, c, sums.at<double>(0, c));
    if (ggamma.defined()) write(ggamma, c, sums.at<double>(1, c));
  }
}

void batch_norm_gradient_ref(const TensorView& gy_any, const TensorView& x_any, const TensorView& y_any,
                             const TensorView& k, Activation act, const TensorView& sums, double count,
                             const TensorView& gx_any) {
  const TensorView gy = as_map(gy_any);
  const TensorView x = as_map(x_any);
  const TensorView y = as_map(y_any);
  const TensorView gx = as_map(gx_any);
  visit_reference_dtype("batch_norm", gy.dtype, [&]<class T>(T) {
    for_each_element(gx, [&](auto n, auto c, auto h, auto w) {
      T g = masked_gradient<T>(gy, x, y, k, act, n, c, h, w);
      if (sums.defined()) {
        const double xhat = normalised<T>(x, k, n, c, h, w);
        g -= static_cast<T>((sums.at<double>(0, c) + xhat * sums.at<double>(1, c)) / count);
      }
      gx.at<T>(n, c, h, w) = g * k.at<T>(kScale, c);
    });
  });
}

void batch_norm_mask_ref(const TensorView& gy_any, const TensorView& y_any, Activation act, const TensorView& g_any) {
  const TensorView gy = as_map(gy_any);
  const TensorView y = as_map(y_any);
  const TensorView g = as_map(g_any);
  visit_reference_dtype("batch_norm", gy.dtype, [&]<class T>(T) {
    for_each_element(g, [&](auto n, auto c, auto h, auto w) {
      g.at<T>(n, c, h, w) = gy.at<T>(n, c, h, w) * activation_slope(act, y.at<T>(n, c, h, w));
    });
  });
}

}  // namespace limbeck::ops
