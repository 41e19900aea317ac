// Glue of dropout and dropout2d.
#include "ops/dropout.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/dropout_kernels.h"

namespace limbeck::ops {
namespace {

Tensor apply(const Tensor& x, const DropoutArgs& args) {
  const Tensor xd = x.dense();
  Tensor y = Tensor::empty_like(xd);
  kDropout(xd.device(), xd.dtype(), xd.view(), y.view(), args);
  return y;
}

struct DropoutNode final : Node {
  DropoutArgs args;
  const char* name() const override { return args.whole_channels ? "dropout2d" : "dropout"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override { gx[0] = apply(gy[0], args); }
  void release() override {}
};

Tensor drop(const char* op, const Tensor& x, double p, bool training, Generator& generator, bool whole_channels) {
  check_float(op, x);
  LIMBECK_CHECK(p >= 0 && p <= 1, op, "got p = {}, expected 0 <= p <= 1", p);
  if (!training || p == 0) return x;
  const std::int64_t decisions = whole_channels ? x.size(0) * x.size(1) : x.numel();
  DropoutArgs args;
  args.generator = generator.reserve(static_cast<std::uint64_t>(decisions));
  args.p = p;
  args.whole_channels = whole_channels;
  Tensor y = apply(x, args);
  if (auto node = record<DropoutNode>({&x})) {
    node->args = args;
    node->attach(y);
  }
  return y;
}

}  // namespace

Tensor dropout(const Tensor& x, double p, bool training, Generator& generator) {
  return drop("dropout", x, p, training, generator, false);
}

Tensor dropout2d(const Tensor& x, double p, bool training, Generator& generator) {
  LIMBECK_CHECK(x.defined() && (x.ndim() == 4 || x.ndim() == 2), "dropout2d", "got {}, expected [N,C,H,W] or [N,C]",
                x.describe());
  return drop("dropout2d", x, p, training, generator, true);
}

}  // namespace limbeck::ops
