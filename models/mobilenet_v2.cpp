// What this is: the stages of MobileNetV2 and the arithmetic of strides and dilations.
#include "models/mobilenet_v2.h"

#include <algorithm>

#include "ops/copy.h"
#include "ops/pad.h"
#include "ops/pool2d.h"

namespace limbeck::models {
namespace {

struct Stage {
  std::int64_t expansion, channels, blocks, stride;
};

// Sandler et al., table 2.
constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                             {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
constexpr std::size_t kLow = 3;      // features.3
constexpr std::size_t kMiddle = 13;  // features.13

/// Follows the stride through the stages and turns strides beyond the output stride into dilation.
class StridePlan {
 public:
  StridePlan(std::int64_t output_stride, Dilation rule) : limit_(output_stride), rule_(rule) {}
  struct Step {
    std::int64_t stride, first_dilation, dilation;
  };
  Step next(std::int64_t stride) {
    if (current_ < limit_) {
      current_ *= stride;
      return {stride, 1, 1};
    }
    // tv: the first block still samples at the old rate, those behind it at the new one.
    // jf: the whole stage stays at the old rate.
    const std::int64_t old = rate_;
    rate_ *= stride;
    return {1, old, rule_ == Dilation::kTv ? rate_ : old};
  }
  [[nodiscard]] std::int64_t current() const noexcept { return current_; }

 private:
  std::int64_t limit_;
  Dilation rule_;
  std::int64_t current_ = 2;  // the stem
  std::int64_t rate_ = 1;
};

ops::Activation activation_of(bool relu6) { return relu6 ? ops::Activation::kRelu6 : ops::Activation::kRelu; }

constexpr auto kFanOut = nn::Init::kKaimingNormalFanOut;

/// True for "before_expansion". Note [padding]
bool parse_padding(const std::string& text) {
  if (text.empty() || text == "depthwise") return false;
  if (text == "before_expansion") return true;
  fail<ConfigError>("mobilenet_v2", "unknown padding '{}'; choose depthwise or before_expansion", text);
}

}  // namespace

std::int64_t make_divisible(double value, std::int64_t divisor) noexcept {
  const auto rounded = static_cast<std::int64_t>(value + static_cast<double>(divisor) / 2.0) / divisor * divisor;
  std::int64_t result = std::max(divisor, rounded);
  if (static_cast<double>(result) < 0.9 * value) result += divisor;
  return result;
}

// Without an expansion both paddings are the same.
InvertedResidual::InvertedResidual(const Args& a, Generator& g)
    : border_(a.pad_before_expansion && a.expansion != 1 ? a.dilation : 0),
      depthwise_({.in = a.in * a.expansion,
                  .out = a.in * a.expansion,
                  .kernel = 3,
                  .stride = a.stride,
                  .padding = border_ > 0 ? 0 : a.dilation,
                  .dilation = a.dilation,
                  .groups = a.in * a.expansion,
                  .init = kFanOut},
                 a.bn, a.act, g),
      project_({.in = a.in * a.expansion, .out = a.out, .kernel = 1, .bias = false, .init = kFanOut}, g),
      project_bn_(a.out, a.bn),
      shortcut_(a.stride == 1 && a.in == a.out) {
  int index = 0;
  const auto name = [&] { return fmt::format("conv.{}", index++); };
  if (a.expansion != 1) {
    expand_.emplace(nn::ConvArgs{.in = a.in, .out = a.in * a.expansion, .kernel = 1, .init = kFanOut}, a.bn, a.act, g);
    register_module(name(), *expand_);
  }
  register_module(name(), depthwise_);
  register_module(name(), project_);
  register_module(name(), project_bn_);
}

Tensor InvertedResidual::forward(const Tensor& x) {
  const Tensor in = border_ > 0 ? ops::pad2d(x, {border_, border_, border_, border_}) : x;
  const Tensor wide = expand_ ? (*expand_)(in) : in;
  return nn::conv_bn_act(project_, project_bn_, ops::Activation::kNone, depthwise_(wide), shortcut_ ? x : Tensor());
}

MobileNetV2::MobileNetV2(const MobileNetV2Options& o, Generator& g) : options_(o) {
  const std::int64_t os = o.output_stride;
  if (os != 32 && os != 16 && os != 8 && os != 4) {
    fail<ConfigError>("mobilenet_v2", "output stride {}, expected 32, 16, 8 or 4", os);
  }
  if (!(o.width > 0) || o.width_divisor < 1) {
    fail<ConfigError>("mobilenet_v2", "width multiplier {} and divisor {}, expected both > 0", o.width,
                      o.width_divisor);
  }
  const ops::Activation act = activation_of(o.relu6);
  std::int64_t in = make_divisible(32 * o.width, o.width_divisor);
  stem_.emplace(nn::ConvArgs{.in = 3, .out = in, .kernel = 3, .stride = 2, .padding = 1, .init = kFanOut}, o.bn, act,
                g);
  register_module("features.0", *stem_);
  taps_.push_back({"features.0", in, 2});

  StridePlan plan(os, o.dilation);
  for (const Stage& stage : kStages) {
    const std::int64_t out = make_divisible(static_cast<double>(stage.channels) * o.width, o.width_divisor);
    const StridePlan::Step step = plan.next(stage.stride);
    for (std::int64_t b = 0; b < stage.blocks; ++b) {
      const InvertedResidual::Args args{.in = in,
                                        .out = out,
                                        .stride = b == 0 ? step.stride : 1,
                                        .dilation = b == 0 ? step.first_dilation : step.dilation,
                                        .expansion = stage.expansion,
                                        .act = act,
                                        .bn = o.bn,
                                        .pad_before_expansion = o.pad_before_expansion};
      blocks_.push_back(std::make_unique<InvertedResidual>(args, g));
      const std::string name = fmt::format("features.{}", blocks_.size());
      register_module(name, *blocks_.back());
      taps_.push_back({name, out, plan.current()});
      in = out;
    }
  }
  if (o.last_layer) {
    const std::int64_t out = make_divisible(1280 * std::max(1.0, o.width), o.width_divisor);
    last_.emplace(nn::ConvArgs{.in = in, .out = out, .kernel = 1, .init = kFanOut}, o.bn, act, g);
    register_module("features.18", *last_);
    taps_.push_back({"features.18", out, plan.current()});
  }
}

Features MobileNetV2::forward(const Tensor& x, TapSet& taps) {
  const nn::ModuleScope scope(*this);
  Features out;
  Tensor y = (*stem_)(x);
  taps.put("features.0", y);
  for (std::size_t k = 1; k <= blocks_.size(); ++k) {
    y = (*blocks_[k - 1])(y);
    taps.put(taps_[k].name, y);
    if (k == kLow) out.low = y;
    if (k == kMiddle) out.middle = y;
  }
  if (last_) {
    y = (*last_)(y);
    taps.put("features.18", y);
  }
  out.high = y;
  return out;
}

Backbone::Channels MobileNetV2::channels() const {
  return {taps_[kLow].channels, taps_[kMiddle].channels, taps_.back().channels};
}

MobileNetV2Options mobilenet_v2_options(const ModelSpec& spec) {
  return {.width = spec.width,
          .width_divisor = spec.width_divisor,
          .output_stride = spec.output_stride,
          .dilation = parse_dilation(spec.dilation, Dilation::kTv),
          .pad_before_expansion = parse_padding(spec.padding),
          .relu6 = spec.relu6,
          .bn = bn_args(spec)};
}

namespace {

MobileNetV2Options classifier_options(const ModelSpec& spec) {
  MobileNetV2Options o = mobilenet_v2_options(spec);
  o.output_stride = 32;
  o.last_layer = true;
  return o;
}

}  // namespace

MobileNetV2Classifier::MobileNetV2Classifier(const ModelSpec& spec, Generator& g)
    : features_(classifier_options(spec), g),
      dropout_(spec.head_dropout < 0 ? 0.2 : spec.head_dropout),
      classifier_({.in = features_.channels().high, .out = spec.classes, .init = nn::Init::kNormal001}, g) {
  adopt(features_);
  register_module("classifier.0", dropout_);
  register_module("classifier.1", classifier_);
}

Output MobileNetV2Classifier::forward(const Tensor& x, std::span<const std::string> requested) {
  TapSet taps(requested, *this);
  const Tensor features = features_.forward(x, taps).high;
  const Tensor pooled = ops::flatten(ops::global_avg_pool2d(features));
  Output out;
  out.logits = classifier_(dropout_(pooled));
  taps.put("logits", out.logits);
  out.taps = taps.take();
  return out;
}

std::vector<TapInfo> MobileNetV2Classifier::tap_infos() const {
  std::vector<TapInfo> infos = features_.tap_infos();
  infos.push_back({"logits", classifier_.weight().size(0), 0});
  return infos;
}

std::vector<std::string> MobileNetV2Classifier::tap_names() const { return names_of(tap_infos()); }

}  // namespace limbeck::models
