// What this is: the resize ops as plain loops, any strides. The backward scatters: each output gives its gradient to
//   the pixels it was made of.
// Read next: ops/interpolate_cpu.cpp.
#include "ops/interpolate_kernels.h"

namespace limbeck::ops {
namespace {

/// Calls f(n, c, h, w) for every element.
template <class F>
void for_each_element(const TensorView& y, F&& f) {
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t c = 0; c < y.c(); ++c) {
      for (std::int64_t h = 0; h < y.h(); ++h) {
        for (std::int64_t w = 0; w < y.w(); ++w) f(n, c, h, w);
      }
    }
  }
}

template <class T>
void clear(const TensorView& t) {
  for_each_element(t, [&](auto n, auto c, auto h, auto w) { t.at<T>(n, c, h, w) = T(0); });
}

}  // namespace

void resize_bilinear_ref(const TensorView& x, bool align_corners, const TensorView& y) {
  const ResizeAxis rows{x.h(), y.h(), align_corners};
  const ResizeAxis columns{x.w(), y.w(), align_corners};
  visit_reference_dtype("resize_bilinear", x.dtype, [&]<class T>(T) {
    for_each_element(y, [&](auto n, auto c, auto oh, auto ow) {
      const auto [top, bottom, v_exact] = rows.sample(oh);
      const auto [left, right, u_exact] = columns.sample(ow);
      const T v = static_cast<T>(v_exact);
      const T u = static_cast<T>(u_exact);
      const T upper = (1 - u) * x.at<T>(n, c, top, left) + u * x.at<T>(n, c, top, right);
      const T lower = (1 - u) * x.at<T>(n, c, bottom, left) + u * x.at<T>(n, c, bottom, right);
      y.at<T>(n, c, oh, ow) = (1 - v) * upper + v * lower;
    });
  });
}

void resize_bilinear_backward_ref(const TensorView& gy, bool align_corners, const TensorView& gx) {
  const ResizeAxis rows{gx.h(), gy.h(), align_corners};
  const ResizeAxis columns{gx.w(), gy.w(), align_corners};
  visit_reference_dtype("resize_bilinear", gy.dtype, [&]<class T>(T) {
    clear<T>(gx);
    for_each_element(gy, [&](auto n, auto c, auto oh, auto ow) {
      const auto [top, bottom, v_exact] = rows.sample(oh);
      const auto [left, right, u_exact] = columns.sample(ow);
      const T v = static_cast<T>(v_exact);
      const T u = static_cast<T>(u_exact);
      const T g = gy.at<T>(n, c, oh, ow);
      gx.at<T>(n, c, top, left) += (1 - v) * (1 - u) * g;
      gx.at<T>(n, c, top, right) += (1 - v) * u * g;
      gx.at<T>(n, c, bottom, left) += v * (1 - u) * g;
      gx.at<T>(n, c, bottom, right) += v * u * g;
    });
  });
}

void resize_nearest_ref(const TensorView& x, const TensorView& y) {
  visit_dtype(x.dtype, [&]<class T>(T) {
    for_each_element(y, [&](auto n, auto c, auto oh, auto ow) {
      y.at<T>(n, c, oh, ow) = x.at<T>(n, c, nearest_source(oh, x.h(), y.h()), nearest_source(ow, x.w(), y.w()));
    });
  });
}

void resize_nearest_backward_ref(const TensorView& gy, const TensorView& gx) {
  visit_reference_dtype("resize_nearest", gy.dtype, [&]<class T>(T) {
    clear<T>(gx);
    for_each_element(gy, [&](auto n, auto c, auto oh, auto ow) {
      gx.at<T>(n, c, nearest_source(oh, gx.h(), gy.h()), nearest_source(ow, gx.w(), gy.w())) += gy.at<T>(n, c, oh, ow);
    });
  });
}

}  // namespace limbeck::ops
