// What this is: models/ka_student.h.
#include "models/ka_student.h"

#include "ops/concat.h"

namespace limbeck::models {
namespace {

constexpr std::int64_t kWidth = 256;
constexpr auto kFanIn = nn::Init::kKaimingNormalFanIn;

}  // namespace

KaStudent::KaStudent(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      pooling_(backbone().channels().high, kWidth, head_bn_args(spec), kFanIn, 0, g),
      point_({.in = backbone().channels().high, .out = kWidth, .kernel = 1, .init = kFanIn}, head_bn_args(spec),
             ops::Activation::kRelu, g),
      project_({.in = 2 * kWidth, .out = kWidth, .kernel = 1, .init = kFanIn}, head_bn_args(spec),
               ops::Activation::kRelu, g),
      dropout_(dropout_of(spec, 0.1)),
      classifier_({.in = kWidth, .out = spec.classes, .kernel = 1, .init = kFanIn}, g) {
  if (spec.aux) fail<ConfigError>("ka_student", "there is no auxiliary head; use aux=false");
  register_module("aspp.image_pooling", pooling_);
  register_module("aspp.conv1x1", point_);
  register_module("aspp.project", project_);
  register_module("dropout", dropout_);
  register_module("classifier", classifier_);
}

void KaStudent::run_head(const Features& features, TapSet& taps, Output& out) {
  const Tensor& x = features.high;
  const Tensor both = ops::concat({pooling_(x), point_(x)}, 1);
  out.logits = classifier_(dropout_(run_tapped(project_, both, taps, "head")));
}

std::vector<TapInfo> KaStudent::head_taps() const { return relu_taps("head", kWidth, backbone().output_stride()); }

}  // namespace limbeck::models
