// What this is: models/segmentation.h.
#include "models/segmentation.h"

#include "models/mobilenet_v1.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"
#include "models/xception.h"

namespace limbeck::models {

namespace {

XceptionOptions xception_options(const ModelSpec& spec, int depth) {
  if (parse_dilation(spec.dilation, Dilation::kTv) != Dilation::kTv) {
    fail<ConfigError>("xception", "dilation pattern '{}', but Xception knows tv only", spec.dilation);
  }
  return {.depth = depth, .output_stride = spec.output_stride, .multi_grid = spec.multi_grid, .bn = bn_args(spec)};
}

}  // namespace

std::unique_ptr<Backbone> make_backbone(const std::string& name, const ModelSpec& spec, Dilation resnet_default,
                                        Generator& g) {
  for (const int depth : {18, 34, 50, 101}) {
    if (name != fmt::format("resnet{}", depth)) continue;
    return std::make_unique<ResNet>(ResNetOptions{.depth = depth,
                                                  .output_stride = spec.output_stride,
                                                  .dilation = parse_resnet_dilation(spec.dilation, resnet_default),
                                                  .stem = parse_stem(spec.stem),
                                                  .multi_grid = spec.multi_grid,
                                                  .bn = bn_args(spec)},
                                    g);
  }
  if (name == "mobilenet_v1") return std::make_unique<MobileNetV1>(mobilenet_v1_options(spec), g);
  if (name == "mobilenet_v2") return std::make_unique<MobileNetV2>(mobilenet_v2_options(spec), g);
  if (name == "xception41") return std::make_unique<Xception>(xception_options(spec, 41), g);
  if (name == "xception65") return std::make_unique<Xception>(xception_options(spec, 65), g);
  fail<ConfigError>(
      "model",
      "unknown backbone '{}'; choose mobilenet_v1, mobilenet_v2, resnet18, resnet34, resnet50, resnet101, "
      "xception41 or xception65",
      name);
}

SegmentationModel::SegmentationModel(const ModelSpec& spec, std::unique_ptr<Backbone> backbone)
    : backbone_(std::move(backbone)) {
  if (spec.classes < 1) fail<ConfigError>("model", "{} classes, expected at least 1", spec.classes);
  set_spec(spec);
  register_module("backbone", *backbone_);
}

Output SegmentationModel::forward(const Tensor& x, std::span<const std::string> requested) {
  TapSet taps(requested, *this);
  Output out;
  run_head(backbone_->forward(x, taps), taps, out);
  taps.put("logits", out.logits);
  if (out.aux.defined()) taps.put("aux", out.aux);
  out.taps = taps.take();
  return out;
}

std::vector<TapInfo> SegmentationModel::tap_infos() const {
  std::vector<TapInfo> infos = backbone_->tap_infos();
  for (TapInfo& info : head_taps()) infos.push_back(std::move(info));
  infos.push_back({"logits", spec().classes, logit_stride()});
  if (has_aux()) infos.push_back({"aux", spec().classes, backbone_->output_stride()});
  return infos;
}

std::vector<TapInfo> relu_taps(const std::string& name, std::int64_t channels, std::int64_t stride) {
  return {{name, channels, stride}, {name + ".pre_relu", channels, stride}};
}

PlainSegmentation::PlainSegmentation(const ModelSpec& spec, std::unique_ptr<Backbone> backbone_in, Generator& g)
    : SegmentationModel(spec, std::move(backbone_in)),
      classifier_({.in = backbone().channels().high, .out = spec.classes, .kernel = 1}, g) {
  register_module("classifier", classifier_);
}

void PlainSegmentation::run_head(const Features& features, TapSet& taps, Output& out) {
  taps.put("head", features.high);  // linear in MobileNetV2: there is no ReLU to be before
  out.logits = classifier_(features.high);
}

std::vector<TapInfo> PlainSegmentation::head_taps() const {
  return {{"head", backbone().channels().high, backbone().output_stride()}};
}

}  // namespace limbeck::models
