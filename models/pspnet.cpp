// What this is: models/pspnet.h.
#include "models/pspnet.h"

#include <algorithm>
#include <array>

#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

using Variant = PspNet::Variant;

constexpr std::array<std::int64_t, 4> kBins{1, 2, 3, 6};
constexpr double kLeakySlope = 0.01;

Variant variant_of(const ModelSpec& spec) {
  return static_cast<Variant>(parse_variant("pspnet", spec.variant, {"td", "td_leaky", "mmseg"}));
}

nn::Init init_of(Variant v) { return v == Variant::kMmseg ? nn::Init::kKaimingNormalFanOut : nn::Init::kDefault; }
nn::Init classifier_init_of(Variant v) { return v == Variant::kMmseg ? nn::Init::kNormal001 : nn::Init::kDefault; }

/// The leaky ReLU is an op of its own; the layers then end with their batch norm.
ops::Activation activation_of(Variant v) {
  return v == Variant::kTdLeaky ? ops::Activation::kNone : ops::Activation::kRelu;
}

FcnHeadArgs aux_args(const ModelSpec& spec, const Backbone& backbone) {
  const Variant v = variant_of(spec);
  const std::int64_t in = backbone.channels().middle;
  return {.in = in,
          .width = v == Variant::kMmseg ? in / 4 : in / 2,
          .classes = spec.classes,
          .conv_bias = v != Variant::kMmseg,
          .dropout = fixed_dropout(spec, 0.1),
          .leaky = v == Variant::kTdLeaky,
          .bn = head_bn_args(spec),
          .init = init_of(v),
          .classifier_init = classifier_init_of(v)};
}

}  // namespace

PspNet::PspNet(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      variant_(variant_of(spec)),
      width_(std::max<std::int64_t>(backbone().channels().high / 4, 1)),
      dropout_(dropout_of(spec, 0.1)),
      classifier_({.in = width_, .out = spec.classes, .kernel = 1, .init = classifier_init_of(variant_)}, g) {
  const std::int64_t in = backbone().channels().high;
  const std::int64_t bins = static_cast<std::int64_t>(kBins.size());
  const ops::Activation act = activation_of(variant_);
  const nn::ConvArgs stage{.in = in, .out = width_, .kernel = 1, .init = init_of(variant_)};
  const nn::ConvArgs wide{
      .in = in + bins * width_, .out = width_, .kernel = 3, .padding = 1, .init = init_of(variant_)};
  for (std::size_t i = 0; i < kBins.size(); ++i) {
    stages_.push_back(std::make_unique<nn::ConvBnAct>(stage, head_bn_args(spec), act, g));
    register_module(fmt::format("classifier.stages.{}", i), *stages_.back());
  }
  bottleneck_ = std::make_unique<nn::ConvBnAct>(wide, head_bn_args(spec), act, g);
  register_module("classifier.bottleneck", *bottleneck_);
  register_module("classifier.dropout", dropout_);
  register_module("classifier.classifier", classifier_);
  if (spec.aux) register_module("aux_classifier", aux_.emplace(aux_args(spec, backbone()), g));
}

Tensor PspNet::pyramid(const Tensor& x) {
  std::array<Tensor, kBins.size()> pooled;
  for (std::size_t i = 0; i < kBins.size(); ++i) {
    Tensor y = (*stages_[i])(ops::adaptive_avg_pool2d(x, {kBins.at(i), kBins.at(i)}));
    if (variant_ == Variant::kTdLeaky) y = ops::leaky_relu(y, kLeakySlope);
    pooled.at(i) = ops::resize_bilinear(y, {x.size(2), x.size(3)}, variant_ != Variant::kMmseg);
  }
  if (variant_ == Variant::kMmseg) return ops::concat({x, pooled[0], pooled[1], pooled[2], pooled[3]}, 1);
  return ops::concat({pooled[0], pooled[1], pooled[2], pooled[3], x}, 1);
}

Tensor PspNet::bottleneck(const Tensor& x, TapSet& taps) {
  if (variant_ != Variant::kTdLeaky) return run_tapped(*bottleneck_, x, taps, "bottleneck", "head");
  const Tensor linear = (*bottleneck_)(x);
  const Tensor y = ops::leaky_relu(linear, kLeakySlope);
  for (const char* name : {"bottleneck.pre_relu", "head.pre_relu"}) taps.put(name, linear);
  for (const char* name : {"bottleneck", "head"}) taps.put(name, y);
  return y;
}

void PspNet::run_head(const Features& features, TapSet& taps, Output& out) {
  const Tensor all = pyramid(features.high);
  taps.put("ppm", all);
  out.logits = classifier_(dropout_(bottleneck(all, taps)));
  if (aux_) out.aux = (*aux_)(features.middle);
}

std::vector<TapInfo> PspNet::head_taps() const {
  const std::int64_t stride = backbone().output_stride();
  const std::int64_t wide = backbone().channels().high + static_cast<std::int64_t>(kBins.size()) * width_;
  std::vector<TapInfo> infos{{"ppm", wide, stride}};
  for (const char* name : {"bottleneck", "head"}) {
    for (TapInfo& info : relu_taps(name, width_, stride)) infos.push_back(std::move(info));
  }
  return infos;
}

}  // namespace limbeck::models
