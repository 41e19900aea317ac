// What this is: pooling as plain loops, float and double, any strides.
// Read next: ops/pool2d_cpu.cpp.
#include <cmath>

#include "ops/pool2d_kernels.h"

namespace limbeck::ops {
namespace {

/// Calls f(n, c, oh, ow) for every output element.
template <class F>
void for_each_output(const TensorView& y, F&& f) {
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t c = 0; c < y.c(); ++c) {
      for (std::int64_t oh = 0; oh < y.h(); ++oh) {
        for (std::int64_t ow = 0; ow < y.w(); ++ow) f(n, c, oh, ow);
      }
    }
  }
}

template <class T>
void clear(const TensorView& t) {
  for_each_output(t, [&](auto n, auto c, auto h, auto w) { t.at<T>(n, c, h, w) = T(0); });
}

}  // namespace

void max_pool_ref(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                  const TensorView& indices) {
  visit_reference_dtype("max_pool2d", x.dtype, [&]<class T>(T) {
    for_each_output(y, [&](auto n, auto c, auto oh, auto ow) {
      T best = x.at<T>(n, c, rows.begin(oh), columns.begin(ow));
      std::int64_t where = -1;
      for (std::int64_t h = rows.begin(oh); h < rows.end(oh); ++h) {
        for (std::int64_t w = columns.begin(ow); w < columns.end(ow); ++w) {
          const T value = x.at<T>(n, c, h, w);
          if (where >= 0 && !(value > best || std::isnan(value))) continue;
          best = value;
          where = (h - rows.origin(oh)) * columns.kernel + (w - columns.origin(ow));
        }
      }
      y.at<T>(n, c, oh, ow) = best;
      if (!indices.defined()) return;
      if (indices.dtype == DType::kU8) {
        indices.at<std::uint8_t>(n, c, oh, ow) = static_cast<std::uint8_t>(where);
      } else {
        indices.at<std::int32_t>(n, c, oh, ow) = static_cast<std::int32_t>(where);
      }
    });
  });
}

void max_pool_backward_ref(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                           const PoolAxis& columns, const TensorView& gx) {
  visit_reference_dtype("max_pool2d", gy.dtype, [&]<class T>(T) {
    clear<T>(gx);
    for_each_output(gy, [&](auto n, auto c, auto oh, auto ow) {
      const std::int64_t where = indices.dtype == DType::kU8
                                     ? static_cast<std::int64_t>(indices.at<std::uint8_t>(n, c, oh, ow))
                                     : static_cast<std::int64_t>(indices.at<std::int32_t>(n, c, oh, ow));
      gx.at<T>(n, c, rows.origin(oh) + where / columns.kernel, columns.origin(ow) + where % columns.kernel) +=
          gy.at<T>(n, c, oh, ow);
    });
  });
}

void avg_pool_ref(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y) {
  visit_reference_dtype("avg_pool2d", x.dtype, [&]<class T>(T) {
    for_each_output(y, [&](auto n, auto c, auto oh, auto ow) {
      double sum = 0.0;
      for (std::int64_t h = rows.begin(oh); h < rows.end(oh); ++h) {
        for (std::int64_t w = columns.begin(ow); w < columns.end(ow); ++w) sum += x.at<T>(n, c, h, w);
      }
      y.at<T>(n, c, oh, ow) = static_cast<T>(sum / static_cast<double>(rows.divisor(oh) * columns.divisor(ow)));
    });
  });
}

void avg_pool_backward_ref(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx) {
  visit_reference_dtype("avg_pool2d", gy.dtype, [&]<class T>(T) {
    clear<T>(gx);
    for_each_output(gy, [&](auto n, auto c, auto oh, auto ow) {
      const T share = gy.at<T>(n, c, oh, ow) / static_cast<T>(rows.divisor(oh) * columns.divisor(ow));
      for (std::int64_t h = rows.begin(oh); h < rows.end(oh); ++h) {
        for (std::int64_t w = columns.begin(ow); w < columns.end(ow); ++w) gx.at<T>(n, c, h, w) += share;
      }
    });
  });
}

}  // namespace limbeck::ops
