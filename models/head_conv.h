// What this is: the two pieces that segmentation heads are made of besides ASPP: a 3x3 convolution that may be separable, and the
//   small fully convolutional head used for auxiliary outputs.
// Read next: models/aspp.h, models/deeplab_v3plus.h, models/pspnet.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "models/model.h"

namespace limbeck::models {

struct HeadConvArgs {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t kernel = 3;  ///< 1 or 3
  std::int64_t rate = 1;    ///< dilation and padding of a 3x3
  bool separable = false;   ///< 3x3 only
  nn::BatchNormArgs bn = {};
  nn::Init init = nn::Init::kDefault;
};

/// Convolution, batch norm, ReLU; separable: depthwise 3x3, batch norm, ReLU, pointwise 1x1, batch norm, ReLU.
/// Names are given in full, because heads number their layers; the owner adopts it: CONV and BN, or CONV.depthwise.{0,1} and
/// CONV.pointwise.{0,1}.
/// Shapes: x [N, in, H, W]; returns [N, out, H, W]
/// Source: the separable form of Chen et al., ECCV 2018, section 3.1, with batch norm and ReLU after both parts as released
class HeadConv final : public nn::UnaryModule {
 public:
  HeadConv(const HeadConvArgs& args, const std::string& conv_name, const std::string& bn_name, Generator& generator);
  [[nodiscard]] std::string type() const override { return "HeadConv"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  /// The value before the last ReLU.
  [[nodiscard]] Tensor before_activation(const Tensor& x);
  [[nodiscard]] ops::Activation activation() const noexcept { return ops::Activation::kRelu; }

 private:
  std::optional<nn::Conv2d> conv_;
  std::optional<nn::BatchNorm2d> bn_;
  std::optional<nn::ConvBnAct> depthwise_;
  std::optional<nn::ConvBnAct> pointwise_;
};

struct FcnHeadArgs {
  std::int64_t in = 0;
  std::int64_t width = 0;
  std::int64_t classes = 0;
  bool conv_bias = false;     ///< the 3x3 has a bias although batch norm follows
  bool drop_channels = true;  ///< dropout of whole channels, otherwise of elements
  double dropout = 0.1;
  bool leaky = false;  ///< leaky ReLU 0.01 instead of ReLU
  nn::BatchNormArgs bn = {};
  nn::Init init = nn::Init::kDefault;
  nn::Init classifier_init = nn::Init::kDefault;
};

/// 3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution. Names 0, 1, 4 as torchvision's FCNHead.
/// Shapes: x [N, in, H, W]; returns [N, classes, H, W]
/// Source: Long et al., CVPR 2015; as auxiliary head: Zhao et al., CVPR 2017, section 3.3
class FcnHead final : public nn::UnaryModule {
 public:
  FcnHead(const FcnHeadArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "FcnHead"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  bool leaky_;
  nn::Conv2d conv_;
  nn::BatchNorm2d bn_;
  std::optional<nn::Dropout> dropout_;
  std::optional<nn::Dropout2d> dropout2d_;
  nn::Conv2d classifier_;
};

}  // namespace limbeck::models
