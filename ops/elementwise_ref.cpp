// Reference kernels of the elementwise ops: one element after another in logical order, f32 and f64, any strides.
#include <cmath>

#include "ops/elementwise_kernels.h"

namespace limbeck::ops {
namespace {

/// Functions of the C++ library, in the type of the argument.
struct LibraryMath {
  template <class T>
  static T exp(T x) {
    return std::exp(x);
  }
  template <class T>
  static T log(T x) {
    return std::log(x);
  }
  template <class T>
  static T sqrt(T x) {
    return std::sqrt(x);
  }
  template <class T>
  static T tanh(T x) {
    return std::tanh(x);
  }
  template <class T>
  static T pow(T x, T a) {
    return std::pow(x, a);
  }
};

/// Element number `index` in logical row-major order.
template <class T>
T& element(const TensorView& v, std::int64_t index) {
  std::int64_t offset = 0;
  for (std::size_t d = v.shape.size(); d-- > 0;) {
    offset += index % v.shape[d] * v.strides[d];
    index /= v.shape[d];
  }
  return v.ptr<T>()[offset];
}

}  // namespace

template <class Op>
void unary_ref(const TensorView& x, const TensorView& y, const UnaryArgs& args) {
  visit_reference_dtype(Op::name, x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T a = static_cast<T>(args.a);
    const T b = static_cast<T>(args.b);
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      element<T>(y, i) = Op::template value<LibraryMath, T>(element<T>(x, i), a, b);
    }
  });
}

template <class Op>
void unary_backward_ref(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args) {
  visit_reference_dtype(Op::name, gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T a = static_cast<T>(args.a);
    const T b = static_cast<T>(args.b);
    for (std::int64_t i = 0; i < gx.numel(); ++i) {
      element<T>(gx, i) = element<T>(gy, i) * Op::template slope<LibraryMath, T>(element<T>(saved, i), a, b);
    }
  });
}

template <class Op>
void binary_ref(const TensorView& a, const TensorView& b, const TensorView& y) {
  visit_reference_dtype(Op::name, y.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < y.numel(); ++i) element<T>(y, i) = Op::value(element<T>(a, i), element<T>(b, i));
  });
}

template <class Op>
void binary_backward_ref(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g,
                         int side) {
  visit_reference_dtype(Op::name, gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < g.numel(); ++i) {
      const T gi = element<T>(gy, i);
      const T ai = element<T>(a, i);
      const T bi = element<T>(b, i);
      element<T>(g, i) = side == 0 ? Op::grad_a(gi, ai, bi) : Op::grad_b(gi, ai, bi);
    }
  });
}

void add_in_place_ref(const TensorView& x, const TensorView& y, double alpha) {
  visit_reference_dtype("add_", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < y.numel(); ++i) element<T>(y, i) += static_cast<T>(alpha) * element<T>(x, i);
  });
}

void scale_ref(const TensorView& x, const TensorView& factor, const TensorView& y) {
  visit_reference_dtype("scale", y.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < y.numel(); ++i) element<T>(y, i) = *factor.ptr<T>() * element<T>(x, i);
  });
}

#define LIMBECK_INSTANTIATE(Op)                                                        \
  template void unary_ref<Op>(const TensorView&, const TensorView&, const UnaryArgs&); \
  template void unary_backward_ref<Op>(const TensorView&, const TensorView&, const TensorView&, const UnaryArgs&);
LIMBECK_UNARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

#define LIMBECK_INSTANTIATE(Op)                                                                                     \
  template void binary_ref<Op>(const TensorView&, const TensorView&, const TensorView&);                            \
  template void binary_backward_ref<Op>(const TensorView&, const TensorView&, const TensorView&, const TensorView&, \
                                        int);
LIMBECK_BINARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

}  // namespace limbeck::ops
