// Reference kernels of softmax: the formulas of ops/softmax.h as plain loops, any strides, f32 and f64.
#include <algorithm>
#include <cmath>

#include "ops/softmax_kernels.h"

namespace limbeck::ops {
namespace {

/// Calls `body(count, at)` for every set of elements that sum to one; `at(view, i)` is the i-th of them.
template <class T, class Body>
void for_each_set(const TensorView& v, SoftmaxAxis axis, const Body& body) {
  if (axis == SoftmaxAxis::kChannel) {
    for (std::int64_t n = 0; n < v.n(); ++n) {
      for (std::int64_t h = 0; h < v.h(); ++h) {
        for (std::int64_t w = 0; w < v.w(); ++w) {
          body(v.c(), [=](const TensorView& t, std::int64_t i) -> T& { return t.at<T>(n, i, h, w); });
        }
      }
    }
    return;
  }
  const std::int64_t width = v.w();
  for (std::int64_t n = 0; n < v.n(); ++n) {
    for (std::int64_t c = 0; c < v.c(); ++c) {
      body(v.h() * width,
           [=](const TensorView& t, std::int64_t i) -> T& { return t.at<T>(n, c, i / width, i % width); });
    }
  }
}

}  // namespace

void softmax_ref(const TensorView& x, const TensorView& y, const SoftmaxArgs& args) {
  visit_reference_dtype("softmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    for_each_set<T>(x, args.axis, [&](std::int64_t count, auto at) {
      T largest = at(x, 0);
      for (std::int64_t i = 1; i < count; ++i) largest = std::max(largest, at(x, i));
      double sum = 0;
      for (std::int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(at(x, i) - largest));
      for (std::int64_t i = 0; i < count; ++i) {
        const auto shifted = static_cast<double>(at(x, i) - largest);
        at(y, i) = static_cast<T>(args.logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    });
  });
}

void softmax_backward_ref(const TensorView& y, const TensorView& gy, const TensorView& gx, const SoftmaxArgs& args) {
  visit_reference_dtype("softmax_backward", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    for_each_set<T>(y, args.axis, [&](std::int64_t count, auto at) {
      double sum = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        sum += static_cast<double>(at(gy, i)) * (args.logarithm ? 1.0 : static_cast<double>(at(y, i)));
      }
      for (std::int64_t i = 0; i < count; ++i) {
        const auto g = static_cast<double>(at(gy, i));
        const auto value = static_cast<double>(at(y, i));
        at(gx, i) = static_cast<T>(args.logarithm ? g - std::exp(value) * sum : value * (g - sum));
      }
    });
  });
}

}  // namespace limbeck::ops
