// What this is: models/deeplab_v3plus.h.
#include "models/deeplab_v3plus.h"

#include "ops/concat.h"
#include "ops/interpolate.h"

namespace limbeck::models {
namespace {

constexpr std::int64_t kWidth = 256;
constexpr std::int64_t kLowWidth = 48;
constexpr auto kFanIn = nn::Init::kKaimingNormalFanIn;

AsppOptions aspp_options(const ModelSpec& spec, const Backbone& backbone) {
  return {.in = backbone.channels().high,
          .out = kWidth,
          .rates = aspp_rates(backbone.output_stride()),
          .dropout = dropout_of(spec, is_vf_decoder(spec) ? 0.1 : 0.5),
          .bn = bn_args(spec),
          .init = kFanIn};
}

nn::ConvArgs conv3x3(std::int64_t in) {
  return {.in = in, .out = kWidth, .kernel = 3, .padding = 1, .bias = false, .init = kFanIn};
}

/// A convolution, batch norm and ReLU that end the decoder: offers taps "head" and "head.pre_relu".
Tensor tapped_conv(nn::Conv2d& conv, nn::BatchNorm2d& bn, const Tensor& x, TapSet& taps) {
  Tensor y;
  if (taps.wants("head.pre_relu")) {
    const Tensor linear = nn::conv_bn_act(conv, bn, ops::Activation::kNone, x);
    taps.put("head.pre_relu", linear);
    y = nn::activate(linear, ops::Activation::kRelu);
  } else {
    y = nn::conv_bn_act(conv, bn, ops::Activation::kRelu, x);
  }
  taps.put("head", y);
  return y;
}

}  // namespace

bool is_vf_decoder(const ModelSpec& spec) {
  if (spec.variant.empty() || spec.variant == "jf") return false;
  if (spec.variant == "vf") return true;
  fail<ConfigError>("deeplabv3plus", "unknown variant '{}'; choose jf or vf", spec.variant);
}

DeepLabV3Plus::DeepLabV3Plus(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      vf_(is_vf_decoder(spec)),
      aspp_(aspp_options(spec, backbone()), g),
      project_({.in = backbone().channels().low, .out = kLowWidth, .kernel = 1, .init = kFanIn}, bn_args(spec),
               ops::Activation::kRelu, g),
      conv1_(conv3x3(kWidth + kLowWidth), g),
      bn1_(kWidth, bn_args(spec)),
      dropout1_(0.5),
      dropout2_(0.1),
      classifier_({.in = kWidth, .out = spec.classes, .kernel = 1, .init = kFanIn}, g) {
  if (spec.aux) fail<ConfigError>("deeplabv3plus", "there is no auxiliary head; use deeplabv3 or aux=false");
  register_module("classifier.aspp", aspp_);
  register_module("classifier.project", project_);
  register_module("classifier.classifier.0", conv1_);
  register_module("classifier.classifier.1", bn1_);
  if (vf_) {
    register_module("classifier.classifier.3", classifier_);
    return;
  }
  conv2_.emplace(conv3x3(kWidth), g);
  bn2_.emplace(kWidth, bn_args(spec));
  register_module("classifier.classifier.3", dropout1_);
  register_module("classifier.classifier.4", *conv2_);
  register_module("classifier.classifier.5", *bn2_);
  register_module("classifier.classifier.7", dropout2_);
  register_module("classifier.classifier.8", classifier_);
}

void DeepLabV3Plus::run_head(const Features& features, TapSet& taps, Output& out) {
  const Tensor low = project_(features.low);
  const Tensor high = ops::resize_bilinear(aspp_.forward(features.high, taps), {low.size(2), low.size(3)}, !vf_);
  if (vf_) {
    out.logits = classifier_(tapped_conv(conv1_, bn1_, ops::concat({low, high}, 1), taps));
    return;
  }
  const Tensor h = nn::conv_bn_act(conv1_, bn1_, ops::Activation::kRelu, ops::concat({high, low}, 1));
  const Tensor y = tapped_conv(*conv2_, *bn2_, dropout1_(h), taps);
  out.logits = classifier_(dropout2_(y));
}

std::vector<TapInfo> DeepLabV3Plus::head_taps() const {
  std::vector<TapInfo> infos = relu_taps("aspp", kWidth, backbone().output_stride());
  for (TapInfo& info : relu_taps("head", kWidth, 4)) infos.push_back(std::move(info));
  return infos;
}

}  // namespace limbeck::models
