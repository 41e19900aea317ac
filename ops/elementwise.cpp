// Glue of the elementwise ops: checks, allocation, dispatch, autograd nodes. One generic function per arity; the
// functor carries everything that differs between ops.
#include "ops/elementwise.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/elementwise_kernels.h"
#include "ops/observer.h"
#include "ops/reduce_kernels.h"
#include "ops/strided_loop.h"

namespace limbeck::ops {
namespace {

template <class Op>
struct UnaryNode final : Node {
  SavedTensor saved;
  UnaryArgs args;
  const char* name() const override { return Op::name; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor gx0 = Tensor::empty_like(gy[0]);
    const TensorView s = Op::saved == Saved::kNothing ? gy[0].view() : saved.unpack(Op::name).view();
    kUnaryBackward<Op>(gy[0].device(), gy[0].dtype(), s, gy[0].view(), gx0.view(), args);
    gx[0] = gx0;
  }
  void release() override { saved.reset(); }
};

template <class Op>
Tensor unary(const Tensor& input, const UnaryArgs& args = {}) {
  check_float(Op::name, input);
  const Tensor x = autocast(Op::policy, input);
  Tensor y = Tensor::empty_like(x);
  kUnary<Op>(x.device(), x.dtype(), x.view(), y.view(), args);
  if (auto node = record<UnaryNode<Op>>({&x})) {
    if (Op::saved == Saved::kInput) node->saved = x;
    if (Op::saved == Saved::kOutput) node->saved = y;
    node->args = args;
    node->attach(y);
  }
  observe(Op::name, {&input}, y, ScalarCall{{args.a, args.b}});
  return y;
}

/// The gradient of an operand of shape `shape` from the gradient in the broadcast shape.
Tensor sum_to_shape(const Tensor& g, const Shape& shape) {
  if (g.shape() == shape) return g;
  Tensor out = Tensor::empty(shape, g.dtype(), g.device());
  kSum(g.device(), g.dtype(), g.view(), expand_view(out.view(), g.shape()), 1.0);
  return out;
}

template <class Op>
struct BinaryNode final : Node {
  SavedTensor a, b;
  Shape a_shape, b_shape;
  const char* name() const override { return Op::name; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    if (needs_input_grad(0)) gx[0] = operand(gy[0], 0, Op::passes_a, a_shape);
    if (needs_input_grad(1)) gx[1] = operand(gy[0], 1, Op::passes_b, b_shape);
  }
  void release() override {
    a.reset();
    b.reset();
  }

 private:
  Tensor operand(const Tensor& gy, int side, bool passes, const Shape& shape) const {
    if (passes) return sum_to_shape(gy, shape);
    const Tensor g = Tensor::empty_like(gy);
    // An op that saved nothing (sub) does not look at the operands: gy stands in for them.
    const TensorView av = a.defined() ? expand_view(a.unpack(Op::name).view(), gy.shape()) : gy.view();
    const TensorView bv = b.defined() ? expand_view(b.unpack(Op::name).view(), gy.shape()) : gy.view();
    kBinaryBackward<Op>(gy.device(), gy.dtype(), gy.view(), av, bv, g.view(), side);
    return sum_to_shape(g, shape);
  }
};

template <class Op>
Tensor binary(const Tensor& a_in, const Tensor& b_in) {
  check_float(Op::name, a_in);
  check_float(Op::name, b_in);
  const auto [a, b] = autocast_widest({&a_in, &b_in});
  check_same_float(Op::name, a, b);
  const Shape shape = broadcast_shapes(Op::name, a.shape(), b.shape());
  Tensor y = Tensor::empty(shape, a.dtype(), a.device());
  kBinary<Op>(y.device(), y.dtype(), expand_view(a.view(), shape), expand_view(b.view(), shape), y.view());
  if (auto node = record<BinaryNode<Op>>({&a, &b})) {
    if (!Op::passes_a) {  // an op whose gradients both depend on the operands
      node->a = a;
      node->b = b;
    }
    node->a_shape = a.shape();
    node->b_shape = b.shape();
    node->attach(y);
  }
  observe(Op::name, {&a_in, &b_in}, y);
  return y;
}

void check_in_place(const char* op, const Tensor& destination) {
  check_float(op, destination);
  LIMBECK_CHECK(!(grad_enabled() && destination.requires_grad()), op,
                "in-place write to a tensor of shape {} that requires grad; wrap it in NoGradGuard",
                destination.shape());
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary<Add>(a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary<Sub>(a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary<Mul>(a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary<Div>(a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return binary<Maximum>(a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary<Minimum>(a, b); }

Tensor add_scalar(const Tensor& x, double value) { return unary<AddScalar>(x, {value, 0}); }
Tensor mul_scalar(const Tensor& x, double value) { return unary<MulScalar>(x, {value, 0}); }
Tensor neg(const Tensor& x) { return unary<Neg>(x); }
Tensor relu(const Tensor& x) { return unary<Relu>(x); }
Tensor relu6(const Tensor& x) { return unary<Relu6>(x); }
Tensor leaky_relu(const Tensor& x, double slope) { return unary<LeakyRelu>(x, {slope, 0}); }
Tensor sigmoid(const Tensor& x) { return unary<Sigmoid>(x); }
Tensor tanh(const Tensor& x) { return unary<Tanh>(x); }
Tensor exp(const Tensor& x) { return unary<Exp>(x); }
Tensor log(const Tensor& x) { return unary<Log>(x); }
Tensor sqrt(const Tensor& x) { return unary<Sqrt>(x); }
Tensor square(const Tensor& x) { return unary<Square>(x); }
Tensor abs(const Tensor& x) { return unary<Abs>(x); }
Tensor pow_scalar(const Tensor& x, double exponent) { return unary<PowScalar>(x, {exponent, 0}); }
Tensor clamp(const Tensor& x, double low, double high) {
  LIMBECK_CHECK(low <= high, "clamp", "got limits {} and {}, expected low <= high", low, high);
  return unary<Clamp>(x, {low, high});
}

void add_(const Tensor& destination, const Tensor& source, double alpha) {
  check_in_place("add_", destination);
  check_float("add_", source);
  const Shape shape = broadcast_shapes("add_", destination.shape(), source.shape());
  LIMBECK_CHECK(shape == destination.shape(), "add_", "source of shape {} does not fit into destination of shape {}",
                source.shape(), destination.shape());
  const Tensor s = source.dtype() == destination.dtype() ? source : source.copy_as(destination.dtype());
  kAddInPlace(destination.device(), destination.dtype(), expand_view(s.view(), shape), destination.view(), alpha);
  destination.bump_version();
}

void mul_scalar_(const Tensor& destination, double value) {
  check_in_place("mul_scalar_", destination);
  kUnary<MulScalar>(destination.device(), destination.dtype(), destination.view(), destination.view(),
                    UnaryArgs{value, 0});
  destination.bump_version();
}

}  // namespace limbeck::ops
