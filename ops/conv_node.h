// What this is: the autograd node of y = conv(x, w) + b that the three convolutions share. They differ only in the kernels
//   that compute the gradients of x and w.
// Read next: ops/conv2d.cpp.
#pragma once

#include "core/autograd.h"
#include "ops/conv2d_kernels.h"

namespace limbeck::ops {

/// Gradients of a convolution.
/// Shapes: x, w, b as conv2d(), depthwise_conv2d() or conv_transpose2d() took them
class ConvNode : public Node {
 public:
  SavedTensor x, w;
  Conv2dOptions options;
  DType bias_dtype = DType::kF32;

  /// What the gradients need. All maps dense, as the kernels saw them in the forward pass.
  void save(const Tensor& dense_x, const Tensor& dense_w, const Tensor& b, const Conv2dOptions& o) {
    x = dense_x;
    w = dense_w;
    options = o;
    if (b.defined()) bias_dtype = b.dtype();
  }

  void release() override {
    x.reset();
    w.reset();
  }

  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    enum : std::size_t { kX, kW, kB };
    const Tensor g = gy[0].dense();
    const Tensor& xs = x.unpack(name());
    const Tensor& ws = w.unpack(name());
    if (needs_input_grad(kX)) {
      gx[kX] = Tensor::empty(xs.shape(), g.dtype(), g.device());
      input_gradient(g, ws, gx[kX]);
    }
    if (needs_input_grad(kW)) {
      gx[kW] = Tensor::empty(ws.shape(), ws.dtype(), g.device());
      weight_gradient(g, xs, gx[kW]);
    }
    if (needs_input_grad(kB)) {
      gx[kB] = Tensor::empty({g.size(1)}, bias_dtype, g.device());
      kChannelSum(g.device(), g.dtype(), g.view(), gx[kB].view());
    }
  }

 protected:
  virtual void input_gradient(const Tensor& g, const Tensor& w, const Tensor& gx) const = 0;
  virtual void weight_gradient(const Tensor& g, const Tensor& x, const Tensor& gw) const = 0;
};

}  // namespace limbeck::ops
