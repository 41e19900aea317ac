// What this is: the glue of conv_transpose2d over the kernels of conv2d. Read "y" there as "x" here and vice versa.
#include "ops/conv_transpose2d.h"

#include "ops/conv_node.h"
#include "ops/copy.h"
#include "ops/depthwise_kernels.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "conv_transpose2d";

/// As is_depthwise(), seen from the convolution that maps the result back to the input.
bool one_filter_per_channel(const Tensor& result, const Tensor& w, const Conv2dOptions& options) {
  return is_depthwise(result.shape(), w.shape(), options);
}

struct ConvTranspose2dNode final : ConvNode {
  const char* name() const override { return kName; }

 protected:
  void input_gradient(const Tensor& g, const Tensor& w, const Tensor& gx) const override {
    if (one_filter_per_channel(g, w, options)) {
      kDepthwiseForward(g.device(), g.dtype(), g.view(), w.view(), TensorView{}, TensorView{}, Activation::kNone,
                        options, gx.view());
    } else {
      const Tensor wk = kernel_weights(w, g.dtype());
      kConv2dForward(g.device(), g.dtype(), g.view(), wk.view(), TensorView{}, options, gx.view());
    }
  }
  void weight_gradient(const Tensor& g, const Tensor& x, const Tensor& gw) const override {
    if (one_filter_per_channel(g, gw, options)) {
      kDepthwiseBackwardWeights(g.device(), g.dtype(), g.view(), x.view(), options, gw.view());
    } else {
      kConv2dBackwardWeights(g.device(), g.dtype(), g.view(), x.view(), options, gw.view());
    }
  }
};

Shape output_shape(const Shape& x, const Shape& w, const ConvTranspose2dOptions& o) {
  LIMBECK_CHECK(x.size() == 4, kName, "got an input of shape {}, expected [N,C,H,W]", x);
  LIMBECK_CHECK(w.size() == 4, kName, "got a weight of shape {}, expected [I,O/groups,KH,KW]", w);
  LIMBECK_CHECK(o.groups >= 1 && w[0] % o.groups == 0, kName,
                "{} input channels of weight {} do not divide into {} groups", w[0], w, o.groups);
  LIMBECK_CHECK(x[1] == w[0], kName, "input {} has {} channels, but weight {} expects {}", x, x[1], w, w[0]);
  Shape y{x[0], w[1] * o.groups, 0, 0};
  for (std::size_t a = 0; a < 2; ++a) {
    LIMBECK_CHECK(o.stride[a] >= 1 && o.dilation[a] >= 1 && o.padding[a] >= 0, kName,
                  "got stride {}, dilation {}, padding {}; expected at least 1, 1, 0", o.stride[a], o.dilation[a],
                  o.padding[a]);
    LIMBECK_CHECK(
        o.output_padding[a] >= 0 && (o.output_padding[a] < o.stride[a] || o.output_padding[a] < o.dilation[a]), kName,
        "got output_padding {}, expected less than the stride {} or the dilation {}", o.output_padding[a], o.stride[a],
        o.dilation[a]);
    y[2 + a] =
        (x[2 + a] - 1) * o.stride[a] - 2 * o.padding[a] + o.dilation[a] * (w[2 + a] - 1) + o.output_padding[a] + 1;
    LIMBECK_CHECK(y[2 + a] >= 1, kName, "input {} and weight {} with padding {} leave nothing of the result", x, w,
                  o.padding[a]);
  }
  LIMBECK_CHECK(x.numel() > 0 && w.numel() > 0, kName, "got an empty input {} or weight {}", x, w);
  return y;
}

}  // namespace

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvTranspose2dOptions& transposed) {
  check_float(kName, x);
  check_float(kName, w);
  const Shape y_shape = output_shape(x.shape(), w.shape(), transposed);
  const Conv2dOptions options{transposed.stride, transposed.padding, transposed.dilation, transposed.groups};

  const Tensor xc = autocast(CastPolicy::kLow, x);
  check_conv_parameters(kName, xc, w, b, y_shape[1]);
  const Tensor xd = xc.dense();
  const Tensor wd = w.dense();
  const Tensor bd = b.defined() ? b.dense() : Tensor();
  const TensorView bias = bd.defined() ? bd.view() : TensorView{};
  const Tensor y = Tensor::empty(y_shape, xc.dtype(), x.device());
  if (one_filter_per_channel(y, wd, options)) {
    kDepthwiseBackwardData(x.device(), xc.dtype(), xd.view(), wd.view(), bias, options, y.view());
  } else {
    const Tensor wk = kernel_weights(wd, xc.dtype());
    kConv2dBackwardData(x.device(), xc.dtype(), xd.view(), wk.view(), bias, options, y.view());
  }
  if (auto node = record<ConvTranspose2dNode>({&xc, &w, &b})) {
    node->save(xd, wd, b, options);
    node->attach(y);
  }
  return y;
}

}  // namespace limbeck::ops
