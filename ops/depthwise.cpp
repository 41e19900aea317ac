// What this is: the glue of the depthwise convolution: checks, allocation, the autograd node.
// Read next: ops/conv_node.h, ops/depthwise_kernels.h.
#include "ops/depthwise.h"

#include "ops/conv_node.h"
#include "ops/copy.h"
#include "ops/depthwise_kernels.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "depthwise_conv2d";

struct DepthwiseNode final : ConvNode {
  const char* name() const override { return kName; }

 protected:
  void input_gradient(const Tensor& g, const Tensor& w, const Tensor& gx) const override {
    kDepthwiseBackwardData(g.device(), g.dtype(), g.view(), w.view(), TensorView{}, options, gx.view());
  }
  void weight_gradient(const Tensor& g, const Tensor& x, const Tensor& gw) const override {
    kDepthwiseBackwardWeights(g.device(), g.dtype(), x.view(), g.view(), options, gw.view());
  }
};

}  // namespace

Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& options) {
  check_float(kName, x);
  check_float(kName, w);
  const Shape y_shape = conv2d_output_shape(kName, x.shape(), w.shape(), options);
  LIMBECK_CHECK(options.groups == x.size(1) && w.size(0) == x.size(1), kName,
                "input {} and weight {} with {} groups, expected one group and one filter per channel; use conv2d",
                x.shape(), w.shape(), options.groups);

  const Tensor xc = autocast(CastPolicy::kLow, x);
  check_conv_parameters(kName, xc, w, b, w.size(0));
  const Tensor xd = xc.dense();
  const Tensor wd = w.dense();
  const Tensor bd = b.defined() ? b.dense() : Tensor();
  const Tensor y = Tensor::empty(y_shape, xc.dtype(), x.device());
  kDepthwiseForward(x.device(), xc.dtype(), xd.view(), wd.view(), bd.defined() ? bd.view() : TensorView{}, TensorView{},
                    Activation::kNone, options, y.view());
  if (auto node = record<DepthwiseNode>({&xc, &w, &b})) {
    node->save(xd, wd, b, options);
    node->attach(y);
  }
  observe("conv2d", {&x, &w, &b}, y, options);  // a convolution to everybody but the kernels
  return y;
}

}  // namespace limbeck::ops
