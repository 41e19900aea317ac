// What this is: models/aspp.h.
#include "models/aspp.h"

#include <algorithm>

#include "ops/concat.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

constexpr auto kRelu = ops::Activation::kRelu;
constexpr std::int64_t kLargestRate = 1024;

nn::ConvArgs point_conv(std::int64_t in, std::int64_t out, nn::Init init) {
  return {.in = in, .out = out, .kernel = 1, .bias = false, .init = init};
}

HeadConvArgs atrous_conv(const AsppOptions& o, std::size_t i) {
  return {.in = o.in, .out = o.out, .rate = o.rates.at(i), .separable = o.separable, .bn = o.bn, .init = o.init};
}

HeadConvArgs projection(const AsppOptions& o) {
  return {.in = 5 * o.out, .out = o.out, .kernel = o.project_kernel, .bn = o.bn, .init = o.init};
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
    : pooling_first_(o.pooling_first),
      point_(point_conv(o.in, o.out, o.init), o.bn, kRelu, g),
      atrous1_(atrous_conv(o, 0), "convs.1.0", "convs.1.1", g),
      atrous2_(atrous_conv(o, 1), "convs.2.0", "convs.2.1", g),
      atrous3_(atrous_conv(o, 2), "convs.3.0", "convs.3.1", g),
      pooling_(o.in, o.out, o.bn, o.init, 1, g),
      project_(projection(o), "project.0", "project.1", g),
      dropout_(o.drop_channels ? 0.0 : o.dropout),
      dropout2d_(o.drop_channels ? o.dropout : 0.0) {
  register_module("convs.0", point_);
  adopt(atrous1_);
  adopt(atrous2_);
  adopt(atrous3_);
  register_module("convs.4", pooling_);
  adopt(project_);
  register_module("dropout", dropout_);
  register_module("dropout2d", dropout2d_);
}

Tensor Aspp::forward(const Tensor& x, TapSet& taps, std::string_view alias) {
  const nn::ModuleScope scope(*this);
  const Tensor b0 = point_(x);
  const Tensor b1 = atrous1_(x);
  const Tensor b2 = atrous2_(x);
  const Tensor b3 = atrous3_(x);
  const Tensor image = pooling_(x);
  const Tensor all = pooling_first_ ? ops::concat({image, b0, b1, b2, b3}, 1) : ops::concat({b0, b1, b2, b3, image}, 1);
  return dropout2d_(dropout_(run_tapped(project_, all, taps, "aspp", alias)));
}

std::array<std::int64_t, 3> aspp_rates(const ModelSpec& spec, std::int64_t output_stride) {
  const auto& given = spec.aspp_rates;
  if (given != std::array<std::int64_t, 3>{}) {
    if (std::any_of(given.begin(), given.end(), [](auto rate) { return rate < 1 || rate > kLargestRate; })) {
      fail<ConfigError>("aspp", "rates {}, {}, {}, expected three from 1 to {}", given[0], given[1], given[2],
                        kLargestRate);
    }
    return given;
  }
  switch (output_stride) {
    case 32: return {3, 6, 9};
    case 16: return {6, 12, 18};
    case 8: return {12, 24, 36};
    default: fail<ConfigError>("aspp", "output stride {}, expected 32, 16 or 8", output_stride);
  }
}

}  // namespace limbeck::models
