// What this is: the glue of the depthwise convolution: checks, allocation, the autograd node.
// Read next: ops/depthwise_kernels.h.
#include "ops/depthwise.h"

#include "core/autograd.h"
#include "ops/conv2d_kernels.h"
#include "ops/copy.h"
#include "ops/depthwise_kernels.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "depthwise_conv2d";

struct DepthwiseNode final : Node {
  SavedTensor x, w;
  Conv2dOptions options;
  DType bias_dtype = DType::kF32;

  const char* name() const override { return kName; }
  void release() override {
    x.reset();
    w.reset();
  }

  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    enum : std::size_t { kX, kW, kB };
    const Tensor g = gy[0].dense();
    const Tensor& xs = x.unpack(kName);
    const Tensor& ws = w.unpack(kName);
    const Device device = g.device();
    if (needs_input_grad(kX)) {
      gx[kX] = Tensor::empty(xs.shape(), g.dtype(), device);
      kDepthwiseBackwardData(device, g.dtype(), g.view(), ws.view(), TensorView{}, options, gx[kX].view());
    }
    if (needs_input_grad(kW)) {
      gx[kW] = Tensor::empty(ws.shape(), ws.dtype(), device);
      kDepthwiseBackwardWeights(device, g.dtype(), xs.view(), g.view(), options, gx[kW].view());
    }
    if (needs_input_grad(kB)) {
      gx[kB] = Tensor::empty({g.size(1)}, bias_dtype, device);
      kChannelSum(device, g.dtype(), g.view(), gx[kB].view());
    }
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
    node->x = xd;
    node->w = wd;
    node->options = options;
    if (b.defined()) node->bias_dtype = b.dtype();
    node->attach(y);
  }
  observe("conv2d", {&x, &w, &b}, y, options);  // a convolution to everybody but the kernels
  return y;
}

}  // namespace limbeck::ops
