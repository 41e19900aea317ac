// Glue of the reductions.
#include "ops/reduce.h"

#include <array>

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/copy_kernels.h"
#include "ops/elementwise.h"
#include "ops/reduce_kernels.h"

namespace limbeck::ops {
namespace {

/// Which dimensions of which shape are reduced, and what comes out.
struct Plan {
  Shape input, result;
  std::array<bool, kMaxDims> reduced{};
  bool keepdim = false;
  std::int64_t terms = 1;  // elements that go into one result
};

Plan make_plan(const char* op, const Tensor& x, const Shape& dims, bool keepdim) {
  check_float(op, x);
  Plan plan;
  plan.input = x.shape();
  plan.keepdim = keepdim;
  for (const std::int64_t dim : dims) {
    const std::size_t d = check_dim(op, dim, x.ndim());
    LIMBECK_CHECK(!plan.reduced[d], op, "dimension {} is named twice in {}", dim, dims);
    plan.reduced[d] = true;
    plan.terms *= x.shape()[d];
  }
  for (std::size_t d = 0; d < x.shape().size(); ++d) {
    if (!plan.reduced[d]) plan.result.push_back(x.shape()[d]);
    if (plan.reduced[d] && keepdim) plan.result.push_back(1);
  }
  return plan;
}

Shape all_dims(const Tensor& x) {
  Shape dims;
  for (std::int64_t d = 0; x.defined() && d < x.ndim(); ++d) dims.push_back(d);
  return dims;
}

/// A result (or its gradient) seen in the shape of the input: stride 0 along the reduced dimensions.
TensorView over_input(const Tensor& result, const Plan& plan) {
  TensorView v{result.raw_data(), result.dtype(), plan.input, {}};
  v.strides.resize(plan.input.size());
  std::size_t k = 0;
  for (std::size_t d = 0; d < plan.input.size(); ++d) {
    if (!plan.reduced[d]) v.strides[d] = result.strides()[k];
    if (!plan.reduced[d] || plan.keepdim) ++k;
  }
  return v;
}

struct SumNode final : Node {
  Plan plan;
  DType dtype = DType::kF32;  // of the input
  double scale = 1;
  const char* op = "sum";
  const char* name() const override { return op; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    // Scale while it is small, then repeat.
    const Tensor scaled = scale == 1 ? gy[0] : mul_scalar(gy[0], scale);
    const Tensor g = cast(scaled, dtype);
    gx[0] = Tensor::empty(plan.input, dtype, g.device());
    kCopy(g.device(), dtype, over_input(g, plan), gx[0].view());
  }
  void release() override {}
};

Tensor scaled_sum(const char* op, const Tensor& x, const Shape& dims, bool keepdim, bool divide) {
  const Plan plan = make_plan(op, x, dims, keepdim);
  LIMBECK_CHECK(!divide || plan.terms > 0, op, "got shape {} without elements along {}", x.shape(), dims);
  const double scale = divide ? 1.0 / static_cast<double>(plan.terms) : 1.0;
  const DType dtype = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor y = Tensor::empty(plan.result, dtype, x.device());
  if (plan.terms == 0) {
    y.zero_();
  } else {
    kSum(x.device(), x.dtype(), x.view(), over_input(y, plan), scale);
  }
  if (auto node = record<SumNode>({&x})) {
    node->plan = plan;
    node->dtype = x.dtype();
    node->scale = scale;
    node->op = op;
    node->attach(y);
  }
  return y;
}

struct AmaxNode final : Node {
  SavedTensor x, y;
  Plan plan;
  const char* name() const override { return "amax"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor& input = x.unpack(name());
    gx[0] = Tensor::empty_like(input);
    kAmaxBackward(input.device(), input.dtype(), input.view(), over_input(y.unpack(name()), plan),
                  over_input(gy[0], plan), gx[0].view());
  }
  void release() override {
    x.reset();
    y.reset();
  }
};

}  // namespace

Tensor sum(const Tensor& x) { return scaled_sum("sum", x, all_dims(x), false, false); }
Tensor mean(const Tensor& x) { return scaled_sum("mean", x, all_dims(x), false, true); }
Tensor sum(const Tensor& x, const Shape& dims, bool keepdim) { return scaled_sum("sum", x, dims, keepdim, false); }
Tensor mean(const Tensor& x, const Shape& dims, bool keepdim) { return scaled_sum("mean", x, dims, keepdim, true); }

Tensor amax(const Tensor& x, const Shape& dims, bool keepdim) {
  const Plan plan = make_plan("amax", x, dims, keepdim);
  LIMBECK_CHECK(plan.terms > 0, "amax", "got shape {} without elements along {}", x.shape(), dims);
  Tensor y = Tensor::empty(plan.result, x.dtype(), x.device());
  kAmax(x.device(), x.dtype(), x.view(), over_input(y, plan));
  if (auto node = record<AmaxNode>({&x})) {
    node->x = x;
    node->y = y;
    node->plan = plan;
    node->attach(y);
  }
  return y;
}

Tensor argmax(const Tensor& x, std::int64_t dim) {
  const Plan plan = make_plan("argmax", x, {dim}, false);
  LIMBECK_CHECK(plan.terms > 0, "argmax", "got shape {} without elements along dimension {}", x.shape(), dim);
  Tensor y = Tensor::empty(plan.result, DType::kI64, x.device());
  kArgmax(x.device(), x.dtype(), x.view(), over_input(y, plan), check_dim("argmax", dim, x.ndim()));
  return y;
}

}  // namespace limbeck::ops
