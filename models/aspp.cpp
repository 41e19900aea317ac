// What this is: models/aspp.h.
#include "models/aspp.h"

#include "ops/concat.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

constexpr auto kRelu = ops::Activation::kRelu;

nn::ConvArgs point_conv(std::int64_t in, std::int64_t out, nn::Init init) {
  return {.in = in, .out = out, .kernel = 1, .bias = false, .init = init};
}

nn::ConvArgs atrous_conv(const AsppOptions& o, std::size_t i) {
  const std::int64_t rate = o.rates.at(i);
  return {.in = o.in, .out = o.out, .kernel = 3, .padding = rate, .dilation = rate, .bias = false, .init = o.init};
}

}  // namespace

ImagePooling::ImagePooling(std::int64_t in, std::int64_t out, nn::BatchNormArgs bn, nn::Init init, int first_index,
                           Generator& g)
    : conv_(point_conv(in, out, init), g), bn_(out, bn) {
  register_module(std::to_string(first_index), conv_);
  register_module(std::to_string(first_index + 1), bn_);
}

Tensor ImagePooling::forward(const Tensor& x) {
  const Tensor y = nn::conv_bn_act(conv_, bn_, kRelu, ops::global_avg_pool2d(x));
  // From one pixel, bilinear and nearest are the same: a copy to every position.
  return ops::resize_bilinear(y, {x.size(2), x.size(3)}, false);
}

Aspp::Aspp(const AsppOptions& o, Generator& g)
    : point_(point_conv(o.in, o.out, o.init), o.bn, kRelu, g),
      atrous1_(atrous_conv(o, 0), o.bn, kRelu, g),
      atrous2_(atrous_conv(o, 1), o.bn, kRelu, g),
      atrous3_(atrous_conv(o, 2), o.bn, kRelu, g),
      pooling_(o.in, o.out, o.bn, o.init, 1, g),
      project_(point_conv(5 * o.out, o.out, o.init), o.bn, kRelu, g),
      dropout_(o.dropout) {
  register_module("convs.0", point_);
  register_module("convs.1", atrous1_);
  register_module("convs.2", atrous2_);
  register_module("convs.3", atrous3_);
  register_module("convs.4", pooling_);
  register_module("project", project_);
  register_module("dropout", dropout_);
}

Tensor Aspp::forward(const Tensor& x, TapSet& taps) {
  const nn::ModuleScope scope(*this);
  const Tensor all = ops::concat({point_(x), atrous1_(x), atrous2_(x), atrous3_(x), pooling_(x)}, 1);
  return dropout_(run_tapped(project_, all, taps, "aspp"));
}

std::array<std::int64_t, 3> aspp_rates(std::int64_t output_stride) {
  switch (output_stride) {
    case 32: return {3, 6, 9};
    case 16: return {6, 12, 18};
    case 8: return {12, 24, 36};
    default: fail<ConfigError>("aspp", "output stride {}, expected 32, 16 or 8", output_stride);
  }
}

}  // namespace limbeck::models
