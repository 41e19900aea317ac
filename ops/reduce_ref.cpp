// Reference reductions: one result after another, terms in logical order, accumulated in double.
#include <limits>

#include "ops/reduce_kernels.h"
#include "ops/reduce_loop.h"

namespace limbeck::ops {

void sum_ref(const TensorView& x, const TensorView& y, double scale) {
  visit_reference_dtype("sum", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ReduceLoop loop(y);
    for (std::int64_t i = 0; i < loop.results(); ++i) {
      double total = 0;
      for (std::int64_t k = 0; k < loop.terms(); ++k) {
        total += static_cast<double>(x.ptr<T>()[loop.result(x, i) + loop.term(x, k)]);
      }
      y.ptr<T>()[loop.result(y, i)] = static_cast<T>(scale * total);
    }
  });
}

void amax_ref(const TensorView& x, const TensorView& y) {
  visit_reference_dtype("amax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ReduceLoop loop(y);
    for (std::int64_t i = 0; i < loop.results(); ++i) {
      T largest = -std::numeric_limits<T>::infinity();
      for (std::int64_t k = 0; k < loop.terms(); ++k) {
        const T v = x.ptr<T>()[loop.result(x, i) + loop.term(x, k)];
        if (v > largest || v != v) largest = v;
      }
      y.ptr<T>()[loop.result(y, i)] = largest;
    }
  });
}

void amax_backward_ref(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx) {
  visit_reference_dtype("amax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ReduceLoop loop(y);
    for (std::int64_t i = 0; i < loop.results(); ++i) {
      const T largest = y.ptr<T>()[loop.result(y, i)];
      const T* row = x.ptr<T>() + loop.result(x, i);
      T ties = 0;
      for (std::int64_t k = 0; k < loop.terms(); ++k) ties += row[loop.term(x, k)] == largest ? T(1) : T(0);
      const T share = gy.ptr<T>()[loop.result(gy, i)] / ties;
      for (std::int64_t k = 0; k < loop.terms(); ++k) {
        gx.ptr<T>()[loop.result(gx, i) + loop.term(gx, k)] = row[loop.term(x, k)] == largest ? share : T(0);
      }
    }
  });
}

void argmax_ref(const TensorView& x, const TensorView& y, std::size_t dim) {
  visit_reference_dtype("argmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ReduceLoop loop(y);
    for (std::int64_t i = 0; i < loop.results(); ++i) {
      const T* row = x.ptr<T>() + loop.result(x, i);
      std::int64_t best = 0;
      for (std::int64_t k = 1; k < x.shape[dim]; ++k) {
        const T v = row[k * x.strides[dim]];
        const T b = row[best * x.strides[dim]];
        if (v > b || (v != v && b == b)) best = k;
      }
      y.ptr<std::int64_t>()[loop.result(y, i)] = best;
    }
  });
}

}  // namespace limbeck::ops
