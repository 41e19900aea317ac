// What this is: atrous spatial pyramid pooling and the image-pooling branch, shared by the DeepLab heads.
// Read next: models/deeplab_v3.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>

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
  double dropout = 0.5;
  nn::BatchNormArgs bn = {};
  nn::Init init = nn::Init::kDefault;
};

/// Five parallel branches, concatenated and projected: 1x1; 3x3 at three rates; image pooling.
/// Formula: y = dropout(relu(bn(w * [b0(x), b1(x), b2(x), b3(x), pool(x)])))
/// Shapes:  x [N, in, H, W]; returns [N, out, H, W]. Taps "aspp" (after ReLU, before dropout) and "aspp.pre_relu".
/// Source:  Chen et al., arXiv 1706.05587, section 3.3; names of torchvision (convs.0 .. convs.4, project)
class Aspp final : public nn::Module {
 public:
  Aspp(const AsppOptions& options, Generator& generator);
  [[nodiscard]] std::string type() const override { return "ASPP"; }
  [[nodiscard]] Tensor forward(const Tensor& x, TapSet& taps);

 private:
  nn::ConvBnAct point_;
  nn::ConvBnAct atrous1_;
  nn::ConvBnAct atrous2_;
  nn::ConvBnAct atrous3_;
  ImagePooling pooling_;
  nn::ConvBnAct project_;
  nn::Dropout dropout_;
};

/// Rates for a backbone's output stride: 6, 12, 18 at 16; doubled at 8; halved at 32.
/// Shapes: none
/// Throws: ConfigError for another output stride.
[[nodiscard]] std::array<std::int64_t, 3> aspp_rates(std::int64_t output_stride);

}  // namespace limbeck::models
