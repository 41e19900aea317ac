// What this is: the depthwise convolution as plain loops in the order of the formula, f32 and f64, any strides.
#include "ops/depthwise_kernels.h"

namespace limbeck::ops {
namespace {

/// Calls body(n, c, p, q, r, s, h, v): output pixel (p, q), tap (r, s), input pixel (h, v) inside the map.
template <class Body>
void for_each_product(const TensorView& x, const TensorView& w, const TensorView& y, const Conv2dOptions& options,
                      const Body& body) {
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t c = 0; c < y.c(); ++c) {
      for (std::int64_t p = 0; p < y.h(); ++p) {
        for (std::int64_t q = 0; q < y.w(); ++q) {
          for (std::int64_t r = 0; r < w.h(); ++r) {
            for (std::int64_t s = 0; s < w.w(); ++s) {
              const std::int64_t h = p * options.stride[0] - options.padding[0] + r * options.dilation[0];
              const std::int64_t v = q * options.stride[1] - options.padding[1] + s * options.dilation[1];
              if (h >= 0 && h < x.h() && v >= 0 && v < x.w()) body(n, c, p, q, r, s, h, v);
            }
          }
        }
      }
    }
  }
}

template <class Body>
void for_each_element(const TensorView& y, const Body& body) {
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t c = 0; c < y.c(); ++c) {
      for (std::int64_t p = 0; p < y.h(); ++p) {
        for (std::int64_t q = 0; q < y.w(); ++q) body(n, c, p, q);
      }
    }
  }
}

}  // namespace

void depthwise_forward_ref(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                           Activation act, const Conv2dOptions& options, const TensorView& y) {
  visit_reference_dtype("depthwise_conv2d", x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_each_element(
        y, [&](auto n, auto c, auto p, auto q) { y.at<T>(n, c, p, q) = bias.defined() ? bias.at<T>(c) : T(0); });
    for_each_product(x, w, y, options, [&](auto n, auto c, auto p, auto q, auto r, auto s, auto h, auto v) {
      y.at<T>(n, c, p, q) += w.at<T>(c, 0, r, s) * x.at<T>(n, c, h, v);
    });
    for_each_element(y, [&](auto n, auto c, auto p, auto q) {
      const T sum = y.at<T>(n, c, p, q) + (residual.defined() ? residual.at<T>(n, c, p, q) : T(0));
      y.at<T>(n, c, p, q) = activate(act, sum);
    });
  });
}

void depthwise_backward_data_ref(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                 const Conv2dOptions& options, const TensorView& gx) {
  visit_reference_dtype("depthwise_conv2d", gy.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_each_element(
        gx, [&](auto n, auto c, auto p, auto q) { gx.at<T>(n, c, p, q) = bias.defined() ? bias.at<T>(c) : T(0); });
    for_each_product(gx, w, gy, options, [&](auto n, auto c, auto p, auto q, auto r, auto s, auto h, auto v) {
      gx.at<T>(n, c, h, v) += w.at<T>(c, 0, r, s) * gy.at<T>(n, c, p, q);
    });
  });
}

void depthwise_backward_weights_ref(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                    const TensorView& gw) {
  visit_reference_dtype("depthwise_conv2d", x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_each_element(gw, [&](auto c, auto i, auto r, auto s) { gw.at<T>(c, i, r, s) = T(0); });
    for_each_product(x, gw, gy, options, [&](auto n, auto c, auto p, auto q, auto r, auto s, auto h, auto v) {
      gw.at<T>(c, 0, r, s) += x.at<T>(n, c, h, v) * gy.at<T>(n, c, p, q);
    });
  });
}

}  // namespace limbeck::ops
