// What this is: models/deeplab_v3.h.
#include "models/deeplab_v3.h"

namespace limbeck::models {
namespace {

constexpr std::int64_t kWidth = 256;

bool is_vf(const ModelSpec& spec) {
  if (spec.variant.empty() || spec.variant == "tv") return false;
  if (spec.variant == "vf") return true;
  fail<ConfigError>("deeplabv3", "unknown variant '{}'; choose tv or vf", spec.variant);
}

nn::Init init_of(const ModelSpec& spec) { return is_vf(spec) ? nn::Init::kKaimingNormalFanIn : nn::Init::kDefault; }

AsppOptions aspp_options(const ModelSpec& spec, const Backbone& backbone) {
  return {.in = backbone.channels().high,
          .out = kWidth,
          .rates = aspp_rates(backbone.output_stride()),
          .dropout = dropout_of(spec, is_vf(spec) ? 0.1 : 0.5),
          .bn = bn_args(spec),
          .init = init_of(spec)};
}

nn::ConvArgs conv3x3(std::int64_t in, std::int64_t out, nn::Init init) {
  return {.in = in, .out = out, .kernel = 3, .padding = 1, .bias = false, .init = init};
}

}  // namespace

DeepLabV3::AuxHead::AuxHead(std::int64_t in, std::int64_t classes, nn::BatchNormArgs bn_args_in, Generator& g)
    : conv(conv3x3(in, in / 4, nn::Init::kDefault), g),
      bn(in / 4, bn_args_in),
      dropout(0.1),
      classifier({.in = in / 4, .out = classes, .kernel = 1}, g) {}

DeepLabV3::DeepLabV3(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      aspp_(aspp_options(spec, backbone()), g),
      conv_(conv3x3(kWidth, kWidth, init_of(spec)), g),
      bn_(kWidth, bn_args(spec)),
      classifier_({.in = kWidth, .out = spec.classes, .kernel = 1, .init = init_of(spec)}, g) {
  register_module("classifier.0", aspp_);
  register_module("classifier.1", conv_);
  register_module("classifier.2", bn_);
  register_module("classifier.4", classifier_);
  if (!spec.aux) return;
  if (is_vf(spec)) fail<ConfigError>("deeplabv3", "variant vf has no auxiliary head; use variant tv or aux=false");
  aux_.emplace(backbone().channels().middle, spec.classes, bn_args(spec), g);
  register_module("aux_classifier.0", aux_->conv);
  register_module("aux_classifier.1", aux_->bn);
  register_module("aux_classifier.3", aux_->dropout);
  register_module("aux_classifier.4", aux_->classifier);
}

void DeepLabV3::run_head(const Features& features, TapSet& taps, Output& out) {
  const Tensor pyramid = aspp_.forward(features.high, taps);
  Tensor y;
  if (taps.wants("head.pre_relu")) {
    y = nn::conv_bn_act(conv_, bn_, ops::Activation::kNone, pyramid);
    taps.put("head.pre_relu", y);
    y = nn::activate(y, ops::Activation::kRelu);
  } else {
    y = nn::conv_bn_act(conv_, bn_, ops::Activation::kRelu, pyramid);
  }
  taps.put("head", y);
  out.logits = classifier_(y);
  if (aux_) {
    const Tensor h = nn::conv_bn_act(aux_->conv, aux_->bn, ops::Activation::kRelu, features.middle);
    out.aux = aux_->classifier(aux_->dropout(h));
  }
}

std::vector<TapInfo> DeepLabV3::head_taps() const {
  const std::int64_t stride = backbone().output_stride();
  std::vector<TapInfo> infos = relu_taps("aspp", kWidth, stride);
  for (TapInfo& info : relu_taps("head", kWidth, stride)) infos.push_back(std::move(info));
  return infos;
}

}  // namespace limbeck::models
