// What this is: models/deeplab_v3plus.h.
#include "models/deeplab_v3plus.h"

#include "ops/concat.h"
#include "ops/interpolate.h"

namespace limbeck::models {
namespace {

using Variant = DeepLabV3Plus::Variant;

constexpr std::int64_t kLowWidth = 48;

std::int64_t width_of(Variant v) { return v == Variant::kMmseg ? 512 : 256; }

nn::Init init_of(Variant v) {
  return v == Variant::kMmseg ? nn::Init::kKaimingNormalFanOut : nn::Init::kKaimingNormalFanIn;
}

nn::Init classifier_init_of(Variant v) { return v == Variant::kMmseg ? nn::Init::kNormal001 : init_of(v); }

bool is_separable(const ModelSpec& spec) { return spec.separable || decoder_variant(spec) == Variant::kMmseg; }

AsppOptions aspp_options(const ModelSpec& spec, const Backbone& backbone) {
  const Variant v = decoder_variant(spec);
  const double own_dropout = v == Variant::kJf ? 0.5 : 0.1;
  if (v == Variant::kMmseg && spec.aspp_dropout >= 0) {
    fail<ConfigError>("deeplabv3plus",
                      "aspp_dropout {}: variant mmseg has no dropout behind its ASPP; use head_dropout",
                      spec.aspp_dropout);
  }
  return {.in = backbone.channels().high,
          .out = width_of(v),
          .rates = aspp_rates(spec, backbone.output_stride()),
          .project_kernel = v == Variant::kMmseg ? 3 : 1,
          .pooling_first = v == Variant::kMmseg || v == Variant::kTfd,
          .separable = is_separable(spec),
          .dropout = v == Variant::kMmseg ? 0.0 : aspp_dropout_of(spec, own_dropout),
          .bn = head_bn_args(spec),
          .init = init_of(v)};
}

HeadConvArgs refinement(const ModelSpec& spec, std::int64_t in) {
  const Variant v = decoder_variant(spec);
  return {.in = in, .out = width_of(v), .separable = is_separable(spec), .bn = head_bn_args(spec), .init = init_of(v)};
}

}  // namespace

Variant decoder_variant(const ModelSpec& spec) {
  return static_cast<Variant>(parse_variant("deeplabv3plus", spec.variant, {"jf", "vf", "tfd", "mmseg"}));
}

DeepLabV3Plus::DeepLabV3Plus(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      variant_(decoder_variant(spec)),
      width_(width_of(variant_)),
      aspp_(aspp_options(spec, backbone()), g),
      project_({.in = backbone().channels().low, .out = kLowWidth, .kernel = 1, .init = init_of(variant_)},
               head_bn_args(spec), ops::Activation::kRelu, g),
      conv1_(refinement(spec, width_ + kLowWidth), "classifier.classifier.0", "classifier.classifier.1", g),
      dropout1_(variant_ == Variant::kJf ? fixed_dropout(spec, 0.5) : 0.0),
      dropout2_(variant_ == Variant::kJf ? fixed_dropout(spec, 0.1) : 0.0),
      dropout2d_(variant_ == Variant::kMmseg ? dropout_of(spec, 0.1) : 0.0),
      classifier_({.in = width_, .out = spec.classes, .kernel = 1, .init = classifier_init_of(variant_)}, g) {
  register_module("classifier.aspp", aspp_);
  register_module("classifier.project", project_);
  adopt(conv1_);
  if (variant_ == Variant::kVf) {
    register_module("classifier.classifier.3", classifier_);
  } else {
    register_module("classifier.classifier.3", dropout1_);
    adopt(conv2_.emplace(refinement(spec, width_), "classifier.classifier.4", "classifier.classifier.5", g));
    register_module("classifier.classifier.7", dropout2_);
    register_module("classifier.dropout2d", dropout2d_);
    register_module("classifier.classifier.8", classifier_);
  }
  if (!spec.aux) return;
  if (variant_ != Variant::kMmseg) {
    fail<ConfigError>("deeplabv3plus", "there is no auxiliary head; use variant mmseg, deeplabv3, or aux=false");
  }
  const std::int64_t in = backbone().channels().middle;
  register_module("aux_classifier", aux_.emplace(FcnHeadArgs{.in = in,
                                                             .width = in / 4,
                                                             .classes = spec.classes,
                                                             .dropout = fixed_dropout(spec, 0.1),
                                                             .bn = head_bn_args(spec),
                                                             .init = init_of(variant_),
                                                             .classifier_init = classifier_init_of(variant_)},
                                                 g));
}

void DeepLabV3Plus::run_head(const Features& features, TapSet& taps, Output& out) {
  const bool align_corners = variant_ == Variant::kJf || variant_ == Variant::kTfd;
  const Tensor low = project_(features.low);
  const Tensor high =
      ops::resize_bilinear(aspp_.forward(features.high, taps), {low.size(2), low.size(3)}, align_corners);
  if (aux_) out.aux = (*aux_)(features.middle);
  if (variant_ == Variant::kVf) {
    out.logits = classifier_(run_tapped(conv1_, ops::concat({low, high}, 1), taps, "head"));
    return;
  }
  const Tensor h = conv1_(ops::concat({high, low}, 1));
  out.logits = classifier_(dropout2d_(dropout2_(run_tapped(*conv2_, dropout1_(h), taps, "head"))));
}

std::vector<TapInfo> DeepLabV3Plus::head_taps() const {
  std::vector<TapInfo> infos = relu_taps("aspp", width_, backbone().output_stride());
  for (TapInfo& info : relu_taps("head", width_, 4)) infos.push_back(std::move(info));
  return infos;
}

}  // namespace limbeck::models
