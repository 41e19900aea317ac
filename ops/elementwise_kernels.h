// What this is: kernel signatures and tables of the elementwise ops. One table per op and direction, made from the
//   functor of that op (ops/elementwise_functors.h): kUnary<Relu> is the forward of relu.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/elementwise_functors.h"

namespace limbeck::ops {

/// y = op(x; args). Equal shapes, any strides; x may be y (in place).
/// Shapes:   x, y the same
using UnaryFn = void(const TensorView& x, const TensorView& y, const UnaryArgs& args);
/// gx = gy * slope(saved; args). `saved` is x or y of the forward; for Saved::kNothing any view of the shape.
/// Shapes:   all the same
using UnaryBackwardFn = void(const TensorView& saved, const TensorView& gy, const TensorView& gx,
                             const UnaryArgs& args);
/// y = op(a, b); a and b are already expanded to the shape of y (stride 0 along broadcast dimensions).
/// Shapes:   all the same
using BinaryFn = void(const TensorView& a, const TensorView& b, const TensorView& y);
/// g = gradient of operand `side` (0: a, 1: b) in the shape of the result; the glue sums over broadcast dimensions.
/// Shapes:   all the same
using BinaryBackwardFn = void(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g,
                              int side);
/// y += alpha * x, x expanded to the shape of y.
/// Shapes:   x, y the same
using AddInPlaceFn = void(const TensorView& x, const TensorView& y, double alpha);

/// y = factor x; the factor is one number, read where it lies.
/// Shapes:   x, y the same; factor 0-d, f32 (f64 with f64)
using ScaleFn = void(const TensorView& x, const TensorView& factor, const TensorView& y);

template <class Op>
void unary_ref(const TensorView& x, const TensorView& y, const UnaryArgs& args);
template <class Op>
void unary_cpu(const TensorView& x, const TensorView& y, const UnaryArgs& args);
template <class Op>
void unary_backward_ref(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args);
template <class Op>
void unary_backward_cpu(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args);
template <class Op>
void binary_ref(const TensorView& a, const TensorView& b, const TensorView& y);
template <class Op>
void binary_cpu(const TensorView& a, const TensorView& b, const TensorView& y);
template <class Op>
void binary_backward_ref(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g, int side);
template <class Op>
void binary_backward_cpu(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g, int side);
template <class Op>
void unary_cuda(const TensorView& x, const TensorView& y, const UnaryArgs& args);
template <class Op>
void unary_backward_cuda(const TensorView& saved, const TensorView& gy, const TensorView& gx, const UnaryArgs& args);
template <class Op>
void binary_cuda(const TensorView& a, const TensorView& b, const TensorView& y);
template <class Op>
void binary_backward_cuda(const TensorView& gy, const TensorView& a, const TensorView& b, const TensorView& g,
                          int side);
void add_in_place_ref(const TensorView& x, const TensorView& y, double alpha);
void add_in_place_cpu(const TensorView& x, const TensorView& y, double alpha);
void add_in_place_cuda(const TensorView& x, const TensorView& y, double alpha);
void scale_ref(const TensorView& x, const TensorView& factor, const TensorView& y);
void scale_cpu(const TensorView& x, const TensorView& factor, const TensorView& y);
void scale_cuda(const TensorView& x, const TensorView& factor, const TensorView& y);

template <class Op>
inline constexpr KernelTable<UnaryFn> kUnary{Op::name, unary_ref<Op>, unary_cpu<Op>, unary_cuda<Op>};
template <class Op>
inline constexpr KernelTable<UnaryBackwardFn> kUnaryBackward{Op::name, unary_backward_ref<Op>, unary_backward_cpu<Op>,
                                                             unary_backward_cuda<Op>};
template <class Op>
inline constexpr KernelTable<BinaryFn> kBinary{Op::name, binary_ref<Op>, binary_cpu<Op>, binary_cuda<Op>};
template <class Op>
inline constexpr KernelTable<BinaryBackwardFn> kBinaryBackward{Op::name, binary_backward_ref<Op>,
                                                               binary_backward_cpu<Op>, binary_backward_cuda<Op>};
inline constexpr KernelTable<AddInPlaceFn> kAddInPlace{"add_", add_in_place_ref, add_in_place_cpu, add_in_place_cuda};
inline constexpr KernelTable<ScaleFn> kScaleBy{"scale", scale_ref, scale_cpu, scale_cuda};

}  // namespace limbeck::ops
