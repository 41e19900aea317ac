// What this is: MobileNetV2 as a backbone and as a classification network.
// Read next: models/mobilenet_v2.cpp (the table of stages), models/ka_student.h.
//
// Note [dilation patterns], MobileNetV2
//   Where a stride is removed to keep the output stride, the depthwise convolutions behind it must be dilated:
//     stage          OS16 jf   OS16 tv   OS8 jf    OS8 tv
//     64  x 4        1         1         1,1,1,1   1,2,2,2
//     96  x 3        1         1         2,2,2     2,2,2
//     160 x 3        1,1,1     1,2,2     2,2,2     2,4,4
//     320 x 1        2         2         4         4
//   tv is the exact atrous equivalent of the strided network (TensorFlow, VainF); jf is what the AICSD code base does.
//
// Note [padding]
//   depthwise         the border, as wide as the dilation, is zeros around the input of the depthwise convolution: as torchvision
//                     does, hence as in training on ImageNet
//   before_expansion  zeros around the block's input, so that the depthwise convolution sees act(bn(0)) of the expansion there, and
//                     batch statistics count the border: what jfzhang95's, VainF's and AICSD's networks were trained with. Weights
//                     have the same shapes; with the other padding they give other numbers wherever a map's edge is near.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/spec_options.h"

namespace limbeck::models {

/// Nearest multiple of `divisor`, at least `divisor`, and never below 90 % of `value`.
/// Shapes: none
/// Source: the behaviour of torchvision's _make_divisible
[[nodiscard]] std::int64_t make_divisible(double value, std::int64_t divisor = 8) noexcept;

struct MobileNetV2Options {
  double width = 1.0;
  std::int64_t width_divisor = 8;
  std::int64_t output_stride = 32;  ///< 32, 16, 8, 4
  Dilation dilation = Dilation::kTv;
  bool pad_before_expansion = false;  ///< Note [padding]
  bool last_layer = false;            ///< features.18, 320 -> 1280, for classification
  bool relu6 = true;
  nn::BatchNormArgs bn = {};
};

/// [1x1 expansion], 3x3 depthwise, 1x1 projection; identity shortcut where shapes allow.
/// Formula: y = x + project(dw(expand(x))) if stride 1 and in == out, else project(dw(expand(x))); with pad_before_expansion
///          expand(pad(x)) and no padding in dw
/// Shapes:  x [N, in, H, W]; returns [N, out, H/stride, W/stride]
/// Source:  Sandler et al., CVPR 2018, table 1
class InvertedResidual final : public nn::UnaryModule {
 public:
  struct Args {
    std::int64_t in, out, stride, dilation, expansion;
    ops::Activation act;
    nn::BatchNormArgs bn;
    bool pad_before_expansion = false;
  };
  InvertedResidual(const Args& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "InvertedResidual"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  std::int64_t border_;  // around the block's input; 0: the depthwise convolution pads
  std::optional<nn::ConvBnAct> expand_;
  nn::ConvBnAct depthwise_;
  nn::Conv2d project_;
  nn::BatchNorm2d project_bn_;
  bool shortcut_;
};

/// MobileNetV2 features.0 .. features.17 (or .18). Taps: "features.K".
/// Shapes: x [N, 3, H, W]; low = features.3 (24 channels, stride 4), middle = features.13 (96),
///         high = features.17 (320, linear) or features.18 (1280); channels times `width`
/// Throws: ConfigError for an output stride other than 32, 16, 8, 4 or a width <= 0.
/// Source: Sandler et al., CVPR 2018, table 2; parameter names and padding of torchvision
class MobileNetV2 final : public Backbone {
 public:
  MobileNetV2(const MobileNetV2Options& options, Generator& generator);
  using Backbone::forward;
  [[nodiscard]] std::string type() const override { return "MobileNetV2"; }
  [[nodiscard]] Features forward(const Tensor& x, TapSet& taps) override;
  [[nodiscard]] Channels channels() const override;
  [[nodiscard]] std::int64_t output_stride() const override { return options_.output_stride; }
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override { return taps_; }

 private:
  MobileNetV2Options options_;
  std::optional<nn::ConvBnAct> stem_;
  std::vector<std::unique_ptr<InvertedResidual>> blocks_;  // features.1 ..
  std::optional<nn::ConvBnAct> last_;
  std::vector<TapInfo> taps_;  // of features.0 ..
};

/// torchvision's mobilenet_v2: features, global average, dropout 0.2, linear.
/// Shapes: x [N, 3, H, W]; logits [N, classes]
class MobileNetV2Classifier final : public Model {
 public:
  MobileNetV2Classifier(const ModelSpec& spec, Generator& generator);
  [[nodiscard]] std::string type() const override { return "mobilenet_v2"; }
  [[nodiscard]] Output forward(const Tensor& x, std::span<const std::string> taps = {}) override;
  [[nodiscard]] std::vector<std::string> tap_names() const override;
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override;

 private:
  MobileNetV2 features_;
  nn::Dropout dropout_;
  nn::Linear classifier_;
};

/// Options of the MobileNetV2 inside a segmentation network.
/// Shapes: none
/// Throws: ConfigError for an unknown dilation pattern or padding.
[[nodiscard]] MobileNetV2Options mobilenet_v2_options(const ModelSpec& spec);

}  // namespace limbeck::models
