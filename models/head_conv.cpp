// What this is: models/head_conv.h.
#include "models/head_conv.h"

#include "ops/elementwise.h"

namespace limbeck::models {
namespace {

constexpr auto kRelu = ops::Activation::kRelu;

nn::ConvArgs plain_conv(const HeadConvArgs& a) {
  const std::int64_t padding = a.kernel == 3 ? a.rate : 0;
  return {.in = a.in,
          .out = a.out,
          .kernel = a.kernel,
          .padding = padding,
          .dilation = a.rate,
          .bias = false,
          .init = a.init};
}

nn::ConvArgs depthwise_conv(const HeadConvArgs& a) {
  return {.in = a.in, .out = a.in, .kernel = 3, .padding = a.rate, .dilation = a.rate, .groups = a.in, .init = a.init};
}

}  // namespace

HeadConv::HeadConv(const HeadConvArgs& a, const std::string& conv_name, const std::string& bn_name, Generator& g) {
  if (a.separable && a.kernel == 3) {
    depthwise_.emplace(depthwise_conv(a), a.bn, kRelu, g);
    pointwise_.emplace(nn::ConvArgs{.in = a.in, .out = a.out, .kernel = 1, .init = a.init}, a.bn, kRelu, g);
    register_module(conv_name + ".depthwise", *depthwise_);
    register_module(conv_name + ".pointwise", *pointwise_);
    return;
  }
  conv_.emplace(plain_conv(a), g);
  bn_.emplace(a.out, a.bn);
  register_module(conv_name, *conv_);
  register_module(bn_name, *bn_);
}

Tensor HeadConv::forward(const Tensor& x) {
  if (conv_) return nn::conv_bn_act(*conv_, *bn_, kRelu, x);
  return (*pointwise_)((*depthwise_)(x));
}

Tensor HeadConv::before_activation(const Tensor& x) {
  if (conv_) return nn::conv_bn_act(*conv_, *bn_, ops::Activation::kNone, x);
  return pointwise_->before_activation((*depthwise_)(x));
}

FcnHead::FcnHead(const FcnHeadArgs& a, Generator& g)
    : leaky_(a.leaky),
      conv_({.in = a.in, .out = a.width, .kernel = 3, .padding = 1, .bias = a.conv_bias, .init = a.init}, g),
      bn_(a.width, a.bn),
      classifier_({.in = a.width, .out = a.classes, .kernel = 1, .init = a.classifier_init}, g) {
  register_module("0", conv_);
  register_module("1", bn_);
  if (a.drop_channels) {
    register_module("3", dropout2d_.emplace(a.dropout));
  } else {
    register_module("3", dropout_.emplace(a.dropout));
  }
  register_module("4", classifier_);
}

Tensor FcnHead::forward(const Tensor& x) {
  Tensor y = nn::conv_bn_act(conv_, bn_, leaky_ ? ops::Activation::kNone : kRelu, x);
  if (leaky_) y = ops::leaky_relu(y, 0.01);
  return classifier_(dropout_ ? (*dropout_)(y) : (*dropout2d_)(y));
}

}  // namespace limbeck::models
