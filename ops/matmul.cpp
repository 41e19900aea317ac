// Glue of matmul and linear.
#include "ops/matmul.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/copy_kernels.h"
#include "ops/matmul_kernels.h"
#include "ops/observer.h"
#include "ops/reduce_kernels.h"
#include "ops/strided_loop.h"

namespace limbeck::ops {
namespace {

/// c = a b + bias through the kernel table; a product without terms is zero (plus bias).
void multiply(const Tensor& c, const TensorView& a, const TensorView& b, const TensorView& bias = {}) {
  if (c.numel() == 0) return;
  if (a.numel() == 0) {
    c.zero_();
    if (bias.defined()) kCopy(c.device(), c.dtype(), expand_view(bias, c.shape()), c.view());
    return;
  }
  kMatmul(c.device(), a.dtype, a, b, bias, c.view());
}

struct MatmulNode final : Node {
  SavedTensor a, b;
  bool trans_a = false, trans_b = false;
  const char* name() const override { return "matmul"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    // With Y = A B: gA = gY B^T and gB = A^T gY. A transposed operand takes the transposed equation.
    const TensorView g = gy[0].view();
    const Tensor& at = a.unpack(name());
    const Tensor& bt = b.unpack(name());
    const TensorView am = trans_a ? transposed(at.view()) : at.view();
    const TensorView bm = trans_b ? transposed(bt.view()) : bt.view();
    if (needs_input_grad(0)) {
      gx[0] = Tensor::empty(at.shape(), at.dtype(), at.device());
      trans_a ? multiply(gx[0], bm, transposed(g)) : multiply(gx[0], g, transposed(bm));
    }
    if (needs_input_grad(1)) {
      gx[1] = Tensor::empty(bt.shape(), bt.dtype(), bt.device());
      trans_b ? multiply(gx[1], transposed(g), am) : multiply(gx[1], transposed(am), g);
    }
  }
  void release() override {
    a.reset();
    b.reset();
  }
};

/// The parameter as the kernel wants it: rounded to the type of x, off the tape. The node returns its gradient in the
/// parameter's own type, computed in it, so nothing is lost in between.
Tensor in_type_of(const Tensor& x, const Tensor& parameter) {
  if (parameter.dtype() == x.dtype()) return parameter;
  Tensor out = Tensor::empty(parameter.shape(), x.dtype(), parameter.device());
  kCopy(parameter.device(), x.dtype(), parameter.view(), out.view());
  return out;
}

struct LinearNode final : Node {
  SavedTensor x, w;  // w as the user gave it: an optimizer step before backward must be noticed
  DType bias_dtype = DType::kF32;
  const char* name() const override { return "linear"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor& g = gy[0];
    const Tensor& xs = x.unpack(name());
    const Tensor& ws = w.unpack(name());
    if (needs_input_grad(0)) {
      gx[0] = Tensor::empty_like(xs);
      multiply(gx[0], g.view(), in_type_of(xs, ws).view());
    }
    if (needs_input_grad(1)) {
      gx[1] = Tensor::empty_like(ws);
      multiply(gx[1], transposed(g.view()), xs.view());
    }
    if (needs_input_grad(2)) {
      gx[2] = Tensor::empty({g.size(1)}, bias_dtype, g.device());
      if (g.numel() == 0) {
        gx[2].zero_();
      } else {
        kSum(g.device(), g.dtype(), g.view(), expand_view(gx[2].view(), g.shape()), 1.0);
      }
    }
  }
  void release() override {
    x.reset();
    w.reset();
  }
};

void check_parameter(const Tensor& x, const Tensor& parameter, const char* what) {
  check_float("linear", parameter);
  const bool master = x.dtype() == DType::kBF16 && parameter.dtype() == DType::kF32;
  LIMBECK_CHECK(parameter.dtype() == x.dtype() || master, "linear", "got a {} {} for a {} input, expected {}{}",
                name_of(parameter.dtype()), what, name_of(x.dtype()), name_of(x.dtype()),
                x.dtype() == DType::kBF16 ? " or f32" : "");
}

}  // namespace

Tensor matmul(const Tensor& a_in, const Tensor& b_in, bool trans_a, bool trans_b) {
  const Tensor a = autocast(CastPolicy::kLow, a_in);
  const Tensor b = autocast(CastPolicy::kLow, b_in);
  check_same_float("matmul", a, b);
  LIMBECK_CHECK((a.ndim() == 2 || a.ndim() == 3) && a.ndim() == b.ndim(), "matmul",
                "got shapes {} and {}, expected [M,K] and [K,N], or [B,M,K] and [B,K,N]", a.shape(), b.shape());
  const TensorView am = trans_a ? transposed(a.view()) : a.view();
  const TensorView bm = trans_b ? transposed(b.view()) : b.view();
  const std::size_t row = am.shape.size() - 2;
  LIMBECK_CHECK(am.shape[row + 1] == bm.shape[row] && (row == 0 || am.shape[0] == bm.shape[0]), "matmul",
                "got shapes {}{} and {}{}: {} columns against {} rows{}", a.shape(), trans_a ? " (transposed)" : "",
                b.shape(), trans_b ? " (transposed)" : "", am.shape[row + 1], bm.shape[row],
                row == 0 || am.shape[0] == bm.shape[0] ? "" : ", and the batches differ");
  Shape shape = am.shape;
  shape[row + 1] = bm.shape[row + 1];
  Tensor y = Tensor::empty(shape, a.dtype(), a.device());
  multiply(y, am, bm);
  if (auto node = record<MatmulNode>({&a, &b})) {
    node->a = a;
    node->b = b;
    node->trans_a = trans_a;
    node->trans_b = trans_b;
    node->attach(y);
  }
  return y;
}

Tensor linear(const Tensor& x_in, const Tensor& w, const Tensor& b) {
  const Tensor x = autocast(CastPolicy::kLow, x_in);
  check_float("linear", x);
  check_parameter(x, w, "weight");
  if (b.defined()) check_parameter(x, b, "bias");
  LIMBECK_CHECK(x.ndim() == 2 && w.ndim() == 2 && x.size(1) == w.size(1), "linear",
                "got input {} and weight {}, expected [N,In] and [Out,In]", x.shape(), w.shape());
  LIMBECK_CHECK(!b.defined() || b.shape() == Shape{w.size(0)}, "linear", "got bias {} for weight {}, expected {}",
                b.shape(), w.shape(), Shape{w.size(0)});
  Tensor y = Tensor::empty({x.size(0), w.size(0)}, x.dtype(), x.device());
  const Tensor weight = in_type_of(x, w);
  multiply(y, x.view(), transposed(weight.view()), b.view());
  if (auto node = record<LinearNode>({&x, &w, &b})) {
    node->x = x;
    node->w = w;
    if (b.defined()) node->bias_dtype = b.dtype();
    node->attach(y);
  }
  observe("linear", {&x, &w, &b}, y);
  return y;
}

}  // namespace limbeck::ops
