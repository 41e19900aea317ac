// Vectorised elementwise kernels, f32 and bf16. Everything goes through map_rows(): the functor is applied to rows of
// consecutive elements; operands that are not consecutive (broadcast or transposed) are first gathered into a small
// buffer, so that there is one loop for the compiler to vectorise.
#include <array>
#include <cmath>
#include <utility>

#include "core/vec_math.h"
#include "ops/elementwise_kernels.h"
#include "ops/strided_loop.h"

namespace limbeck::ops {
namespace {

/// Functions that vectorise; T is float.
struct VectorMath {
  static float exp(float x) { return fast_exp(x); }
  static float log(float x) { return fast_log(x); }
  static float sqrt(float x) { return std::sqrt(x); }
  static float pow(float x, float a) { return std::pow(x, a); }  // scalar: rare in segmentation
  static float tanh(float x) {
    // Near 0 the exponential form cancels; there the Padé quotient [5/4] is exact to rounding.
    const float z = x * x;
    const float near = x * (945.0F + z * (105.0F + z)) / (945.0F + z * (420.0F + z * 15.0F));
    const float far = 1.0F - 2.0F / (1.0F + fast_exp(2.0F * std::fabs(x)));
    return std::fabs(x) < 0.6F ? near : std::copysign(far, x);
  }
};

constexpr std::int64_t kChunk = 256;  // elements of a gather buffer: stays in the first-level cache

/// out[i] = function(in0[i], in1[i], ..) over a row; all pointers step by one element.
template <class T, class F, std::size_t... I>
inline void map_row(const F& function, T* out, const std::array<const T*, sizeof...(I)>& in, std::int64_t n,
                    std::index_sequence<I...>) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(function(static_cast<float>(in[I][i])...));
}

template <class T>
inline void gather(const T* from, std::int64_t stride, T* to, std::int64_t n) {
  if (stride == 0) {
    std::fill_n(to, n, *from);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
  }
}

/// out = function(inputs..) for views of one shape and element type T.
template <class T, class F, class... Views>
void map_views(const F& function, const TensorView& out, const Views&... inputs) {
  constexpr std::size_t kInputs = sizeof...(Views);
  constexpr auto kAll = std::make_index_sequence<kInputs>{};
  const LoopNest<kInputs + 1> nest = make_nest<kInputs + 1>({&out, &inputs...});
  const std::array<const T*, kInputs> base{inputs.template ptr<T>()...};
  bool plain = nest.row_stride(0) == 1;
  for (std::size_t k = 1; k <= kInputs; ++k) plain = plain && nest.row_stride(k) == 1;

  for_each_row(nest, [&](const Offsets<kInputs + 1>& at, std::int64_t length) {
    T* y = out.ptr<T>() + at[0];
    std::array<const T*, kInputs> p = base;
    for (std::size_t k = 0; k < kInputs; ++k) p[k] += at[k + 1];
    if (plain) {
      map_row(function, y, p, length, kAll);
      return;
    }
    std::array<std::array<T, kChunk>, kInputs + 1> buffer;
    for (std::int64_t begin = 0; begin < length; begin += kChunk) {
      const std::int64_t n = std::min(kChunk, length - begin);
      std::array<const T*, kInputs> q{};
      for (std::size_t k = 0; k < kInputs; ++k) {
        const std::int64_t stride = nest.row_stride(k + 1);
        q[k] = p[k] + begin * stride;
        if (stride == 1) continue;
        gather(q[k], stride, buffer[k].data(), n);
        q[k] = buffer[k].data();
      }
      const std::int64_t out_stride = nest.row_stride(0);
      if (out_stride == 1) {
        map_row(function, y + begin, q, n, kAll);
      } else {
        T* result = buffer[kInputs].data();
        map_row(function, result, q, n, kAll);
        for (std::int64_t i = 0; i < n; ++i) y[(begin + i) * out_stride] = result[i];
      }
    }
  });
}

}  // namespace

template <class Op>
void unary_cpu(const TensorView& x, const TensorView& y, const UnaryArgs& args) {
  const auto a = static_cast<float>(args.a);
  const auto b = static_cast<float>(args.b);
  visit_fast_dtype(Op::name, x.dtype, [&](auto tag) {
    map_views<decltype(tag)>([a, b](float v) { return Op::template value<VectorMath, float>(v, a, b); }, y, x);
  });
}

template <class Op>
void unary_backward_cpu(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args) {
  const auto a = static_cast<float>(args.a);
  const auto b = static_cast<float>(args.b);
  visit_fast_dtype(Op::name, gy.dtype, [&](auto tag) {
    map_views<decltype(tag)>([a, b](float s, float g) { return g * Op::template slope<VectorMath, float>(s, a, b); },
                             gx, saved, gy);
  });
}

template <class Op>
void binary_cpu(const TensorView& a, const TensorView& b, const TensorView& y) {
  visit_fast_dtype(Op::name, y.dtype, [&](auto tag) {
    map_views<decltype(tag)>([](float u, float v) { return Op::value(u, v); }, y, a, b);
  });
}

template <class Op>
void binary_backward_cpu(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g,
                         int side) {
  visit_fast_dtype(Op::name, gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (side == 0) {
      map_views<T>([](float d, float u, float v) { return Op::grad_a(d, u, v); }, g, gy, a, b);
    } else {
      map_views<T>([](float d, float u, float v) { return Op::grad_b(d, u, v); }, g, gy, a, b);
    }
  });
}

void add_in_place_cpu(const TensorView& x, const TensorView& y, double alpha) {
  const auto scale = static_cast<float>(alpha);
  visit_fast_dtype("add_", y.dtype, [&](auto tag) {
    map_views<decltype(tag)>([scale](float u, float v) { return v + scale * u; }, y, x, y);
  });
}

void scale_cpu(const TensorView& x, const TensorView& factor, const TensorView& y) {
  const float scale = *factor.ptr<float>();
  visit_fast_dtype("scale", y.dtype,
                   [&](auto tag) { map_views<decltype(tag)>([scale](float v) { return scale * v; }, y, x); });
}

#define LIMBECK_INSTANTIATE(Op)                                                        \
  template void unary_cpu<Op>(const TensorView&, const TensorView&, const UnaryArgs&); \
  template void unary_backward_cpu<Op>(const TensorView&, const TensorView&, const TensorView&, const UnaryArgs&);
LIMBECK_UNARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

#define LIMBECK_INSTANTIATE(Op)                                                                                     \
  template void binary_cpu<Op>(const TensorView&, const TensorView&, const TensorView&);                            \
  template void binary_backward_cpu<Op>(const TensorView&, const TensorView&, const TensorView&, const TensorView&, \
                                        int);
LIMBECK_BINARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

}  // namespace limbeck::ops
