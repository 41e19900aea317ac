// What this is: ResNet 18, 34, 50 and 101 as backbones and as classification networks.
// The stride of a Bottleneck is on its 3x3 convolution ("v1.5", torchvision); other code bases put it on conv1 or in the last
//   block and do not fit these weights.
// Read next: models/resnet.cpp (the dilation table), models/deeplab_v3plus.h.
//
// Note [dilation patterns], ResNet: (first block / other blocks) of the 3x3 convolutions
//                          OS16 layer4   OS8 layer3   OS8 layer4
//   tv, Bottleneck         1 / 2         1 / 2        2 / 4         torchvision's replace_stride_with_dilation
//   tv, BasicBlock         1,2 / 2       1,2 / 2      2,4 / 4       conv1 samples at the old rate, conv2 at the new one;
//                                                                   "v1b" is another name of this pattern
//   mmseg, Bottleneck      1 / 2         1 / 2        2 / 4         as tv
//   mmseg, BasicBlock      1,1 / 2,1     1,1 / 2,1    2,1 / 4,1     conv2 is never dilated
//   td                     2 / 2         2 / 2        4 / 4         all of a stage; both convolutions of a BasicBlock
//   jf                     2 / 2         2 / 2        4 / 4         as td
//   jf with multi-grid     2,4,8         2 / 2        4,8,16        Bottleneck, factors (1, 2, 4) per block of layer4
// torchvision's own BasicBlock refuses dilation; dilating both convolutions is what distillation papers do for ResNet-18.
// Padding equals the dilation.
//
// Note [stems]
//   7x7            7x7/2 to 64 channels; torchvision's weights fit this one only
//   deep128        3x3/2 64, 3x3 64, 3x3 128, pooling in ceil mode: SKD, IFVD, CWD. layer1 sees 128 channels, so that even ResNet-18
//                  has a downsample there. Names conv1, bn1 .. conv3, bn3.
//   deep128_floor  the same with ordinary pooling (TensorFlow's "beta" networks)
//   v1c            3x3/2 32, 3x3 32, 3x3 64 (mmsegmentation). Names stem.0, stem.1, stem.3, stem.4, stem.6, stem.7.
// Ceil mode matters for even sizes: 512 gives 129 and not 128 at stride 4.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/spec_options.h"

namespace limbeck::models {

enum class Stem : std::uint8_t { k7x7, kDeep128, kDeep128Floor, kV1c };

/// A name of Note [stems]; empty gives 7x7.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] Stem parse_stem(const std::string& text);

struct ResNetOptions {
  int depth = 50;                   ///< 18, 34, 50, 101
  std::int64_t output_stride = 32;  ///< 32, 16, 8
  Dilation dilation = Dilation::kTv;
  Stem stem = Stem::k7x7;
  std::array<std::int64_t, 3> multi_grid{0, 0, 0};  ///< zeros: (1,2,4) for jf with Bottleneck, else (1,1,1)
  nn::BatchNormArgs bn = {};
};

/// Two 3x3 convolutions or 1x1, 3x3, 1x1 with a shortcut around them.
/// Formula: y = relu(bn_k(conv_k(... relu(bn1(conv1(x))) ...)) + shortcut(x)); shortcut: identity, or 1x1 conv + BN where
///          the stride is not 1 or the channels change
/// Shapes:  x [N, in, H, W]; returns [N, planes * expansion, H/stride, W/stride]
/// Source:  He et al., CVPR 2016, figure 5
class ResidualBlock final : public nn::UnaryModule {
 public:
  struct Args {
    std::int64_t in, planes, stride;
    std::int64_t dilation1, dilation2;  ///< of the first and second 3x3; a Bottleneck has only the first
    bool bottleneck;
    nn::BatchNormArgs bn;
  };
  ResidualBlock(const Args& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return conv3_ ? "Bottleneck" : "BasicBlock"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override { return run(x, ops::Activation::kRelu); }
  /// The block without its last ReLU.
  [[nodiscard]] Tensor before_relu(const Tensor& x);

 private:
  [[nodiscard]] Tensor run(const Tensor& x, ops::Activation last);
  nn::Conv2d conv1_;
  nn::BatchNorm2d bn1_;
  nn::Conv2d conv2_;
  nn::BatchNorm2d bn2_;
  std::optional<nn::Conv2d> conv3_;
  std::optional<nn::BatchNorm2d> bn3_;
  std::optional<nn::ConvBnAct> downsample_;
};

/// ResNet without its classifier. Taps: "layer1" .. "layer4", and "layerN.pre_relu", the sum before the stage's last ReLU.
/// Shapes: x [N, 3, H, W]; low = layer1 (64 or 256 channels, stride 4), middle = layer3, high = layer4 (512 or 2048)
/// Throws: ConfigError for a depth or output stride that does not exist.
/// Source: He et al., CVPR 2016; names and initialisation of torchvision
class ResNet final : public Backbone {
 public:
  ResNet(const ResNetOptions& options, Generator& generator);
  using Backbone::forward;
  [[nodiscard]] std::string type() const override { return fmt::format("ResNet-{}", options_.depth); }
  [[nodiscard]] Features forward(const Tensor& x, TapSet& taps) override;
  [[nodiscard]] Channels channels() const override;
  [[nodiscard]] std::int64_t output_stride() const override { return options_.output_stride; }
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override;

 private:
  using Stage = std::vector<std::unique_ptr<ResidualBlock>>;
  struct StemLayer {
    StemLayer(const nn::ConvArgs& args, nn::BatchNormArgs bn_args, Generator& g)
        : conv(args, g), bn(args.out, bn_args) {}
    nn::Conv2d conv;
    nn::BatchNorm2d bn;
  };
  void add_stem(Generator& generator);
  ResNetOptions options_;
  std::vector<std::unique_ptr<StemLayer>> stem_;
  nn::MaxPool2d maxpool_;
  std::array<Stage, 4> stages_;
  std::array<std::int64_t, 4> strides_{};
  std::int64_t expansion_ = 1;
};

/// torchvision's resnetN: backbone, global average, linear `fc`.
/// Shapes: x [N, 3, H, W]; logits [N, classes]
class ResNetClassifier final : public Model {
 public:
  ResNetClassifier(const ModelSpec& spec, int depth, Generator& generator);
  [[nodiscard]] std::string type() const override { return spec().name; }
  [[nodiscard]] Output forward(const Tensor& x, std::span<const std::string> taps = {}) override;
  [[nodiscard]] std::vector<std::string> tap_names() const override;
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override;

 private:
  ResNet features_;
  nn::Linear fc_;
};

}  // namespace limbeck::models
