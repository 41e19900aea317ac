// What this is: MobileNetV1 as a classification network and as a backbone.
// Read next: models/mobilenet_v1.cpp (the table of layers), models/mobilenet_v2.h.
//
// Note [dilation patterns], MobileNetV1
//   A layer that loses its stride samples at the old rate, those behind it at the new one, as "tv" in models/mobilenet_v2.h:
//     layer (channels)   6 (512)   7 - 11 (512)   12 (1024)   13 (1024)
//     OS16               stride 2  1              1           2
//     OS8                1         2              2           4
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/spec_options.h"

namespace limbeck::models {

struct MobileNetV1Options {
  double width = 1.0;
  std::int64_t width_divisor = 8;
  std::int64_t output_stride = 32;  ///< 32, 16, 8, 4
  bool relu6 = true;
  nn::BatchNormArgs bn = {};
};

/// MobileNetV1 features.0 .. features.13: a 3x3 convolution, then 13 pairs of 3x3 depthwise and 1x1 pointwise convolutions, each
/// with batch norm and ReLU6. Taps: "features.K", and "features.13.pre_relu".
/// Shapes: x [N, 3, H, W]; low = features.3 (128 channels, stride 4), middle = features.11 (512), high = features.13 (1024); channels
///         times `width`
/// Throws: ConfigError for an output stride other than 32, 16, 8, 4 or a width <= 0.
/// Source: Howard et al., arXiv 1704.04861, table 1. Names: features.0.{0,1}, features.K.0.{0,1} (depthwise), features.K.1.{0,1}
class MobileNetV1 final : public Backbone {
 public:
  MobileNetV1(const MobileNetV1Options& options, Generator& generator);
  using Backbone::forward;
  [[nodiscard]] std::string type() const override { return "MobileNetV1"; }
  [[nodiscard]] Features forward(const Tensor& x, TapSet& taps) override;
  [[nodiscard]] Channels channels() const override;
  [[nodiscard]] std::int64_t output_stride() const override { return options_.output_stride; }
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override { return taps_; }

 private:
  struct Layer {
    Layer(const nn::ConvArgs& depthwise_args, const nn::ConvArgs& pointwise_args, ops::Activation act,
          nn::BatchNormArgs bn, Generator& g)
        : depthwise(depthwise_args, bn, act, g), pointwise(pointwise_args, bn, act, g) {}
    nn::ConvBnAct depthwise;
    nn::ConvBnAct pointwise;
  };
  MobileNetV1Options options_;
  std::optional<nn::ConvBnAct> stem_;
  std::vector<std::unique_ptr<Layer>> layers_;  // features.1 ..
  std::vector<TapInfo> taps_;                   // of features.0 ..
};

/// "mobilenet_v1": features, global average, dropout (none unless head_dropout says so), linear.
/// Shapes: x [N, 3, H, W]; logits [N, classes]
/// Source: Howard et al., arXiv 1704.04861. Names: features.*, classifier.1
class MobileNetV1Classifier final : public Model {
 public:
  MobileNetV1Classifier(const ModelSpec& spec, Generator& generator);
  [[nodiscard]] std::string type() const override { return "mobilenet_v1"; }
  [[nodiscard]] Output forward(const Tensor& x, std::span<const std::string> taps = {}) override;
  [[nodiscard]] std::vector<std::string> tap_names() const override;
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override;

 private:
  MobileNetV1 features_;
  nn::Dropout dropout_;
  nn::Linear classifier_;
};

/// Options of the MobileNetV1 inside a segmentation network.
/// Shapes: none
/// Throws: ConfigError for a dilation pattern other than tv.
[[nodiscard]] MobileNetV1Options mobilenet_v1_options(const ModelSpec& spec);

}  // namespace limbeck::models
