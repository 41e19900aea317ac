#include "ops/device_conv2d.h"

#include "core/autograd.h"
#include "core/cuda.h"
#include "ops/copy.h"
#include "ops/depthwise_kernels.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "device_conv2d";

bool depthwise(const Tensor& w, const Conv2dOptions& options) {
  return options.groups > 1 && w.size(1) == 1 && w.size(0) == options.groups;
}

}  // namespace

DeviceConv2d::DeviceConv2d(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act,
                           DType compute, Device device)
    : options_(options), act_(act), compute_(compute) {
  LIMBECK_CHECK(compute == DType::kF32 || compute == DType::kBF16, kName, "compute type {}, expected f32 or bf16",
                name_of(compute));
  LIMBECK_CHECK(w.ndim() == 4 && b.shape() == Shape({w.size(0)}) && w.dtype() == DType::kF32 && b.dtype() == w.dtype(),
                kName, "got a weight {} and a bias {}, expected f32 [O,I/groups,KH,KW] and [O]", w.describe(),
                b.describe());
  // The own kernel of depthwise convolutions reads f32. cuDNN's ready-made engines want the bias in the type of the maps, and
  // those for relu6, which it compiles, want it in f32.
  const bool own = depthwise(w, options);
  w_ = w.detach().copy_as(own ? DType::kF32 : compute).to(device);
  b_ = b.detach().copy_as(own || act == Activation::kRelu6 ? DType::kF32 : compute).to(device);
}

Tensor DeviceConv2d::operator()(const Tensor& x_any, const Tensor& residual_any) const {
  check_float(kName, x_any);
  LIMBECK_CHECK(!should_record({&x_any, &residual_any}), kName,
                "the input requires a gradient, but these weights are for inference; use conv2d or a NoGradGuard");
  LIMBECK_CHECK(x_any.device() == w_.device(), kName, "the input is on {}, the weights on {}",
                x_any.device().to_string(), w_.device().to_string());
  const Shape shape = conv2d_output_shape(kName, x_any.shape(), w_.shape(), options_);
  LIMBECK_CHECK(!residual_any.defined() || residual_any.shape() == shape, kName,
                "residual has shape {}, expected that of the result, {}", residual_any.shape(), shape);
  const Tensor x = cast(x_any, compute_).dense();
  const Tensor residual = residual_any.defined() ? cast(residual_any, compute_).dense() : Tensor();
  const TensorView add = residual.defined() ? residual.view() : TensorView{};
  const Tensor y = Tensor::empty(shape, compute_, x.device());
  cuda::activate(x.device(), kName);
  if (depthwise(w_, options_)) {
    depthwise_forward_cuda(x.view(), w_.view(), b_.view(), add, act_, options_, y.view());
  } else {
    device_conv2d_cuda(x.view(), w_.view(), b_.view(), add, act_, options_, y.view());
  }
  return y;
}

}  // namespace limbeck::ops
