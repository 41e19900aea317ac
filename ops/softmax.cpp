// Glue of softmax and log-softmax.
#include "ops/softmax.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/map_view.h"
#include "ops/softmax_kernels.h"

namespace limbeck::ops {
namespace {

struct SoftmaxNode final : Node {
  SavedTensor y;
  SoftmaxArgs args;
  const char* name() const override { return args.logarithm ? "log_softmax" : "softmax"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor& saved = y.unpack(name());
    const Tensor g = gy[0].dense();
    Tensor out = Tensor::empty(saved.shape(), saved.dtype(), saved.device());
    kSoftmaxBackward(out.device(), out.dtype(), as_map(saved.view()), as_map(g.view()), as_map(out.view()), args);
    gx[0] = std::move(out);
  }
  void release() override { y.reset(); }
};

Tensor run(const Tensor& input, const SoftmaxArgs& args) {
  const char* op = args.logarithm ? "log_softmax" : "softmax";
  check_float(op, input);
  const bool map = input.ndim() == 4;
  LIMBECK_CHECK(map || (input.ndim() == 2 && args.axis == SoftmaxAxis::kChannel), op,
                "input of shape {}, expected [N,C,H,W] (or [N,C] over the channels)", input.shape());
  LIMBECK_CHECK(input.numel() > 0, op, "input of shape {} is empty", input.shape());
  const Tensor wide = autocast(CastPolicy::kFull, input);
  const Tensor x = wide.dense();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  kSoftmax(x.device(), x.dtype(), as_map(x.view()), as_map(y.view()), args);
  if (auto node = record<SoftmaxNode>({&wide})) {
    node->y = y;
    node->args = args;
    node->attach(y);
  }
  return y;
}

}  // namespace

Tensor softmax(const Tensor& x, SoftmaxAxis axis) { return run(x, {axis, false}); }
Tensor log_softmax(const Tensor& x, SoftmaxAxis axis) { return run(x, {axis, true}); }

}  // namespace limbeck::ops
