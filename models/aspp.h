// What this is: atrous spatial pyramid pooling and the image-pooling branch, shared by the DeepLab heads.
// Read next: models/deeplab_v3.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "models/head_conv.h"
#include "models/model.h"

namespace limbeck::models {

/// Mean over the whole map, 1x1 convolution, batch norm, ReLU, spread over the map again.
/// Shapes: x [N, in, H, W]; returns [N, out, H, W]
/// Throws: training with N = 1: batch norm then sees one value per channel.
class ImagePooling final : public nn::UnaryModule {
 public:
  /// `first_index`: number of the convolution in its container: 1 for torchvision, where 0 is the pooling.
  ImagePooling(std::int64_t in, std::int64_t out, nn::BatchNormArgs bn, nn::Init init, int first_index,
               Generator& generator);
  [[nodiscard]] std::string type() const override { return "ImagePooling"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  nn::Conv2d conv_;
  nn::BatchNorm2d bn_;
};

struct AsppOptions {
  std::int64_t in = 2048;
  std::int64_t out = 256;
  std::array<std::int64_t, 3> rates{6, 12, 18};
  std::int64_t project_kernel = 1;  ///< 3: mmsegmentation's bottleneck
  bool pooling_first = false;  ///< order of the concatenation: TensorFlow and mmsegmentation put image pooling first
  bool separable = false;      ///< the three 3x3 branches
  double dropout = 0.5;
  bool drop_channels = false;  ///< dropout of whole channels, otherwise of elements
  nn::BatchNormArgs bn = {};
  nn::Init init = nn::Init::kDefault;
};

/// Five parallel branches, concatenated and projected: 1x1; 3x3 at three rates; image pooling.
/// Formula: y = dropout(relu(bn(w * [b0(x), b1(x), b2(x), b3(x), pool(x)])))
/// Shapes:  x [N, in, H, W]; returns [N, out, H, W]. Taps "aspp" (after ReLU, before dropout) and "aspp.pre_relu", also under
///          the name `alias` if one is given
/// Source:  Chen et al., arXiv 1706.05587, section 3.3; names of torchvision (convs.0 .. convs.4, project), whatever the order
class Aspp final : public nn::Module {
 public:
  Aspp(const AsppOptions& options, Generator& generator);
  [[nodiscard]] std::string type() const override { return "ASPP"; }
  [[nodiscard]] Tensor forward(const Tensor& x, TapSet& taps, std::string_view alias = {});

 private:
  bool pooling_first_;
  nn::ConvBnAct point_;
  HeadConv atrous1_;
  HeadConv atrous2_;
  HeadConv atrous3_;
  ImagePooling pooling_;
  HeadConv project_;
  nn::Dropout dropout_;
  nn::Dropout2d dropout2d_;
};

/// Rates for a backbone's output stride: 6, 12, 18 at 16; doubled at 8; halved at 32. What the spec says goes before.
/// Shapes: none
/// Throws: ConfigError for another output stride, or rates that are not positive.
[[nodiscard]] std::array<std::int64_t, 3> aspp_rates(const ModelSpec& spec, std::int64_t output_stride);

}  // namespace limbeck::models
