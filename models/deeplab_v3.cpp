// What this is: models/deeplab_v3.h.
#include "models/deeplab_v3.h"

namespace limbeck::models {
namespace {

enum class Variant : std::uint8_t { kTv, kVf, kTfd, kMmseg };

Variant variant_of(const ModelSpec& spec) {
  return static_cast<Variant>(parse_variant("deeplabv3", spec.variant, {"tv", "vf", "tfd", "mmseg"}));
}

std::int64_t width_of(Variant v) { return v == Variant::kMmseg ? 512 : 256; }

nn::Init init_of(Variant v) {
  switch (v) {
    case Variant::kTv: return nn::Init::kDefault;
    case Variant::kMmseg: return nn::Init::kKaimingNormalFanOut;
    default: return nn::Init::kKaimingNormalFanIn;
  }
}

nn::Init classifier_init_of(Variant v) { return v == Variant::kMmseg ? nn::Init::kNormal001 : init_of(v); }

AsppOptions aspp_options(const ModelSpec& spec, const Backbone& backbone) {
  const Variant v = variant_of(spec);
  const bool mmseg = v == Variant::kMmseg;
  return {.in = backbone.channels().high,
          .out = width_of(v),
          .rates = aspp_rates(spec, backbone.output_stride()),
          .project_kernel = mmseg ? 3 : 1,
          .pooling_first = mmseg || v == Variant::kTfd,
          .separable = spec.separable,
          .dropout = aspp_dropout_of(spec, v == Variant::kTv ? 0.5 : 0.1),
          .drop_channels = mmseg,
          .bn = head_bn_args(spec),
          .init = init_of(v)};
}

FcnHeadArgs aux_args(const ModelSpec& spec, const Backbone& backbone) {
  const Variant v = variant_of(spec);
  const std::int64_t in = backbone.channels().middle;
  return {.in = in,
          .width = in / 4,
          .classes = spec.classes,
          .drop_channels = v == Variant::kMmseg,
          .dropout = fixed_dropout(spec, 0.1),
          .bn = head_bn_args(spec),
          .init = init_of(v),
          .classifier_init = classifier_init_of(v)};
}

std::unique_ptr<HeadConv> make_conv(const ModelSpec& spec, Generator& g) {
  const Variant v = variant_of(spec);
  if (v == Variant::kTfd || v == Variant::kMmseg) return nullptr;
  const std::int64_t width = width_of(v);
  const HeadConvArgs args{
      .in = width, .out = width, .separable = spec.separable, .bn = head_bn_args(spec), .init = init_of(v)};
  return std::make_unique<HeadConv>(args, "classifier.1", "classifier.2", g);
}

}  // namespace

DeepLabV3::DeepLabV3(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      width_(width_of(variant_of(spec))),
      aspp_(aspp_options(spec, backbone()), g),
      conv_(make_conv(spec, g)),
      classifier_({.in = width_, .out = spec.classes, .kernel = 1, .init = classifier_init_of(variant_of(spec))}, g) {
  register_module("classifier.0", aspp_);
  if (conv_) adopt(*conv_);
  register_module("classifier.4", classifier_);
  if (!spec.aux) return;
  const Variant v = variant_of(spec);
  if (v == Variant::kVf || v == Variant::kTfd) {
    fail<ConfigError>("deeplabv3", "variant {} has no auxiliary head; use variant tv or mmseg, or aux=false",
                      spec.variant);
  }
  register_module("aux_classifier", aux_.emplace(aux_args(spec, backbone()), g));
}

void DeepLabV3::run_head(const Features& features, TapSet& taps, Output& out) {
  // Without a convolution in between, what leaves the ASPP is what enters the classifier.
  const Tensor y = conv_ ? run_tapped(*conv_, aspp_.forward(features.high, taps), taps, "head")
                         : aspp_.forward(features.high, taps, "head");
  out.logits = classifier_(y);
  if (aux_) out.aux = (*aux_)(features.middle);
}

std::vector<TapInfo> DeepLabV3::head_taps() const {
  const std::int64_t stride = backbone().output_stride();
  std::vector<TapInfo> infos = relu_taps("aspp", width_, stride);
  for (TapInfo& info : relu_taps("head", width_, stride)) infos.push_back(std::move(info));
  return infos;
}

}  // namespace limbeck::models
