// What this is: conv2d as plain loops in the order of the formula, f32 and f64, any strides. The oracle of every fast
//   kernel and the only f64 path.
#include "ops/conv2d_kernels.h"

namespace limbeck::ops {
namespace {

/// Position in the map that kernel tap `k` of output position `o` reads; may lie outside.
std::int64_t source(const Conv2dOptions& options, std::size_t axis, std::int64_t o, std::int64_t k) {
  return o * options.stride[axis] - options.padding[axis] + k * options.dilation[axis];
}

bool inside(std::int64_t i, std::int64_t size) { return i >= 0 && i < size; }

/// Calls body(n, o, p, q, i_in_group, i, r, s, h, w) for every product of the convolution that is not with padding.
template <class Body>
void for_each_product(const TensorView& x, const TensorView& w, const TensorView& y, const Conv2dOptions& options,
                      const Body& body) {
  const std::int64_t filters_per_group = y.c() / options.groups;
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t o = 0; o < y.c(); ++o) {
      const std::int64_t first_channel = o / filters_per_group * w.c();
      for (std::int64_t p = 0; p < y.h(); ++p) {
        for (std::int64_t q = 0; q < y.w(); ++q) {
          for (std::int64_t i = 0; i < w.c(); ++i) {
            for (std::int64_t r = 0; r < w.h(); ++r) {
              const std::int64_t xh = source(options, 0, p, r);
              if (!inside(xh, x.h())) continue;
              for (std::int64_t s = 0; s < w.w(); ++s) {
                const std::int64_t xw = source(options, 1, q, s);
                if (inside(xw, x.w())) body(n, o, p, q, i, first_channel + i, r, s, xh, xw);
              }
            }
          }
        }
      }
    }
  }
}

/// Every element of the channel set to its bias, or to 0.
template <class T>
void fill_bias(const TensorView& bias, const TensorView& y) {
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t c = 0; c < y.c(); ++c) {
      const T value = bias.defined() ? bias.at<T>(c) : T(0);
      for (std::int64_t h = 0; h < y.h(); ++h) {
        for (std::int64_t w = 0; w < y.w(); ++w) y.at<T>(n, c, h, w) = value;
      }
    }
  }
}

}  // namespace

void conv2d_forward_ref(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                        const TensorView& y) {
  visit_reference_dtype("conv2d", x.dtype, [&](auto zero) {
    using T = decltype(zero);
    fill_bias<T>(bias, y);
    for_each_product(x, w, y, options,
                     [&](auto n, auto o, auto p, auto q, auto ig, auto i, auto r, auto s, auto h, auto v) {
                       y.at<T>(n, o, p, q) += w.at<T>(o, ig, r, s) * x.at<T>(n, i, h, v);
                     });
  });
}

void conv2d_backward_data_ref(const TensorView& gy, const TensorView& w, const TensorView& bias,
                              const Conv2dOptions& options, const TensorView& gx) {
  visit_reference_dtype("conv2d", gy.dtype, [&](auto zero) {
    using T = decltype(zero);
    fill_bias<T>(bias, gx);
    for_each_product(gx, w, gy, options,
                     [&](auto n, auto o, auto p, auto q, auto ig, auto i, auto r, auto s, auto h, auto v) {
                       gx.at<T>(n, i, h, v) += w.at<T>(o, ig, r, s) * gy.at<T>(n, o, p, q);
                     });
  });
}

void conv2d_backward_weights_ref(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                 const TensorView& gw) {
  visit_reference_dtype("conv2d", x.dtype, [&](auto zero) {
    using T = decltype(zero);
    fill_bias<T>(TensorView{}, gw);
    for_each_product(x, gw, gy, options,
                     [&](auto n, auto o, auto p, auto q, auto ig, auto i, auto r, auto s, auto h, auto v) {
                       gw.at<T>(o, ig, r, s) += x.at<T>(n, i, h, v) * gy.at<T>(n, o, p, q);
                     });
  });
}

void channel_sum_ref(const TensorView& gy, const TensorView& gbias) {
  visit_reference_dtype("conv2d", gy.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t c = 0; c < gy.c(); ++c) {
      T sum = 0;
      for (std::int64_t n = 0; n < gy.n(); ++n) {
        for (std::int64_t h = 0; h < gy.h(); ++h) {
          for (std::int64_t w = 0; w < gy.w(); ++w) sum += gy.at<T>(n, c, h, w);
        }
      }
      gbias.at<T>(c) = sum;
    }
  });
}

}  // namespace limbeck::ops
