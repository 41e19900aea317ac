// What this is: the glue of conv2d: checks, allocation, the autograd node.
// Read next: ops/conv_node.h, ops/conv2d_kernels.h.
#include "ops/conv2d.h"

#include "core/rounded_copy.h"
#include "ops/conv2d_kernels.h"
#include "ops/conv_node.h"
#include "ops/copy.h"
#include "ops/depthwise.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "conv2d";

struct Conv2dNode final : ConvNode {
  const char* name() const override { return kName; }

 protected:
  void input_gradient(const Tensor& g, const Tensor& w, const Tensor& gx) const override {
    const Tensor wk = kernel_weights(w, g.dtype());
    kConv2dBackwardData(g.device(), g.dtype(), g.view(), wk.view(), TensorView{}, options, gx.view());
  }
  void weight_gradient(const Tensor& g, const Tensor& x, const Tensor& gw) const override {
    kConv2dBackwardWeights(g.device(), g.dtype(), x.view(), g.view(), options, gw.view());
  }
};

}  // namespace

std::string Conv2dOptions::to_string() const {
  return fmt::format("stride {}x{}, padding {}x{}, dilation {}x{}, groups {}", stride[0], stride[1], padding[0],
                     padding[1], dilation[0], dilation[1], groups);
}

Shape conv2d_output_shape(const char* where, const Shape& x, const Shape& w, const Conv2dOptions& options) {
  LIMBECK_CHECK(x.size() == 4, where, "got an input of shape {}, expected [N,C,H,W]", x);
  LIMBECK_CHECK(w.size() == 4, where, "got a weight of shape {}, expected [O,I/groups,KH,KW]", w);
  LIMBECK_CHECK(options.groups >= 1, where, "got {} groups, expected at least 1", options.groups);
  LIMBECK_CHECK(x[1] == w[1] * options.groups, where,
                "input {} has {} channels, but weight {} with {} groups expects {}", x, x[1], w, options.groups,
                w[1] * options.groups);
  LIMBECK_CHECK(w[0] % options.groups == 0, where, "weight {} has {} filters, not divisible by {} groups", w, w[0],
                options.groups);
  Shape y{x[0], w[0], 0, 0};
  for (std::size_t a = 0; a < 2; ++a) {
    LIMBECK_CHECK(options.stride[a] >= 1 && options.dilation[a] >= 1 && options.padding[a] >= 0, where,
                  "got {}; stride and dilation must be at least 1 and padding at least 0", options.to_string());
    LIMBECK_CHECK(w[2 + a] >= 1, where, "got a weight of shape {}, expected a kernel of at least one tap", w);
    const std::int64_t reach = options.dilation[a] * (w[2 + a] - 1) + 1;
    const std::int64_t room = x[2 + a] + 2 * options.padding[a] - reach;
    LIMBECK_CHECK(room >= 0, where,
                  "the kernel {} does not fit into the input {} ({}); enlarge the input or the padding", w, x,
                  options.to_string());
    y[2 + a] = room / options.stride[a] + 1;
  }
  LIMBECK_CHECK(y.numel() > 0 && x.numel() > 0, where, "got an empty input {} or weight {}", x, w);
  return y;
}

bool is_depthwise(const Shape& x, const Shape& w, const Conv2dOptions& options) noexcept {
  return options.groups > 1 && options.groups == x[1] && w[0] == x[1];
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& options) {
  check_float(kName, x);
  check_float(kName, w);
  const Shape y_shape = conv2d_output_shape(kName, x.shape(), w.shape(), options);
  if (is_depthwise(x.shape(), w.shape(), options)) return depthwise_conv2d(x, w, b, options);

  const Tensor xc = autocast(CastPolicy::kLow, x);
  check_conv_parameters(kName, xc, w, b, w.size(0));
  const Tensor xd = xc.dense();
  const Tensor wd = w.dense();
  const Tensor y = Tensor::empty(y_shape, xc.dtype(), x.device());
  const Tensor bd = b.defined() ? b.dense() : Tensor();
  kConv2dForward(x.device(), xc.dtype(), xd.view(), kernel_weights(wd, xc.dtype()).view(),
                 bd.defined() ? bd.view() : TensorView{}, options, y.view());
  if (auto node = record<Conv2dNode>({&xc, &w, &b})) {
    node->save(xd, wd, b, options);
    node->attach(y);
  }
  observe(kName, {&x, &w, &b}, y, options);
  return y;
}

Tensor kernel_weights(const Tensor& w, DType maps) {
  return w.device().is_cuda() && w.dtype() == DType::kF32 && maps == DType::kBF16 ? rounded_copy(w) : w;
}

void check_conv_parameters(const char* where, const Tensor& x, const Tensor& w, const Tensor& b, std::int64_t outputs) {
  const DType expected = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  LIMBECK_CHECK(w.dtype() == expected, where,
                "weight is {}, expected {} for a {} input; weights stay {} and are rounded inside", name_of(w.dtype()),
                name_of(expected), name_of(x.dtype()), name_of(expected));
  if (!b.defined()) return;
  LIMBECK_CHECK(b.shape() == Shape({outputs}), where, "bias has shape {}, expected [{}] for weight {}", b.shape(),
                outputs, w.shape());
  LIMBECK_CHECK(b.dtype() == expected, where, "bias is {}, expected {}", name_of(b.dtype()), name_of(expected));
}

}  // namespace limbeck::ops
