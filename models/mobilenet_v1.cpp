// What this is: the layers of MobileNetV1 and the arithmetic of strides and dilations.
#include "models/mobilenet_v1.h"

#include "models/mobilenet_v2.h"
#include "ops/copy.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

struct Row {
  std::int64_t channels, stride;
};

// Howard et al., table 1.
constexpr Row kRows[] = {{64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
                         {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};
constexpr std::size_t kLow = 3;      // features.3
constexpr std::size_t kMiddle = 11;  // features.11
constexpr auto kFanOut = nn::Init::kKaimingNormalFanOut;

}  // namespace

MobileNetV1::MobileNetV1(const MobileNetV1Options& o, Generator& g) : options_(o) {
  const std::int64_t os = o.output_stride;
  if (os != 32 && os != 16 && os != 8 && os != 4) {
    fail<ConfigError>("mobilenet_v1", "output stride {}, expected 32, 16, 8 or 4", os);
  }
  if (!(o.width > 0) || o.width_divisor < 1) {
    fail<ConfigError>("mobilenet_v1", "width multiplier {} and divisor {}, expected both > 0", o.width,
                      o.width_divisor);
  }
  const ops::Activation act = o.relu6 ? ops::Activation::kRelu6 : ops::Activation::kRelu;
  std::int64_t in = make_divisible(32 * o.width, o.width_divisor);
  stem_.emplace(nn::ConvArgs{.in = 3, .out = in, .kernel = 3, .stride = 2, .padding = 1, .init = kFanOut}, o.bn, act,
                g);
  register_module("features.0", *stem_);
  taps_.push_back({"features.0", in, 2});
  std::int64_t current = 2;
  std::int64_t rate = 1;
  for (const Row& row : kRows) {
    const std::int64_t out = make_divisible(static_cast<double>(row.channels) * o.width, o.width_divisor);
    const bool strided = current < os;
    const nn::ConvArgs depthwise{.in = in,
                                 .out = in,
                                 .kernel = 3,
                                 .stride = strided ? row.stride : 1,
                                 .padding = rate,
                                 .dilation = rate,
                                 .groups = in,
                                 .init = kFanOut};
    layers_.push_back(std::make_unique<Layer>(
        depthwise, nn::ConvArgs{.in = in, .out = out, .kernel = 1, .init = kFanOut}, act, o.bn, g));
    (strided ? current : rate) *= row.stride;
    const std::string name = fmt::format("features.{}", layers_.size());
    register_module(name + ".0", layers_.back()->depthwise);
    register_module(name + ".1", layers_.back()->pointwise);
    taps_.push_back({name, out, current});
    in = out;
  }
  taps_.push_back({taps_.back().name + ".pre_relu", in, current});
}

Features MobileNetV1::forward(const Tensor& x, TapSet& taps) {
  const nn::ModuleScope scope(*this);
  Features out;
  Tensor y = (*stem_)(x);
  taps.put("features.0", y);
  for (std::size_t k = 1; k <= layers_.size(); ++k) {
    Layer& layer = *layers_[k - 1];
    y = layer.depthwise(y);
    if (k == layers_.size()) {
      y = run_tapped(layer.pointwise, y, taps, taps_[k].name);
    } else {
      y = layer.pointwise(y);
      taps.put(taps_[k].name, y);
    }
    if (k == kLow) out.low = y;
    if (k == kMiddle) out.middle = y;
  }
  out.high = y;
  return out;
}

Backbone::Channels MobileNetV1::channels() const {
  return {taps_[kLow].channels, taps_[kMiddle].channels, taps_.back().channels};
}

MobileNetV1Options mobilenet_v1_options(const ModelSpec& spec) {
  if (parse_dilation(spec.dilation, Dilation::kTv) != Dilation::kTv) {
    fail<ConfigError>("mobilenet_v1", "dilation pattern '{}', but MobileNetV1 knows tv only", spec.dilation);
  }
  return {.width = spec.width,
          .width_divisor = spec.width_divisor,
          .output_stride = spec.output_stride,
          .relu6 = spec.relu6,
          .bn = bn_args(spec)};
}

namespace {

MobileNetV1Options classifier_options(const ModelSpec& spec) {
  MobileNetV1Options o = mobilenet_v1_options(spec);
  o.output_stride = 32;
  return o;
}

}  // namespace

MobileNetV1Classifier::MobileNetV1Classifier(const ModelSpec& spec, Generator& g)
    : features_(classifier_options(spec), g),
      dropout_(dropout_of(spec, 0.0)),
      classifier_({.in = features_.channels().high, .out = spec.classes, .init = nn::Init::kNormal001}, g) {
  adopt(features_);
  register_module("classifier.0", dropout_);
  register_module("classifier.1", classifier_);
}

Output MobileNetV1Classifier::forward(const Tensor& x, std::span<const std::string> requested) {
  TapSet taps(requested, *this);
  Output out;
  out.logits = classifier_(dropout_(ops::flatten(ops::global_avg_pool2d(features_.forward(x, taps).high))));
  taps.put("logits", out.logits);
  out.taps = taps.take();
  return out;
}

std::vector<TapInfo> MobileNetV1Classifier::tap_infos() const {
  std::vector<TapInfo> infos = features_.tap_infos();
  infos.push_back({"logits", classifier_.weight().size(0), 0});
  return infos;
}

std::vector<std::string> MobileNetV1Classifier::tap_names() const { return names_of(tap_infos()); }

}  // namespace limbeck::models
