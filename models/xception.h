// What this is: Xception-41 and Xception-65 in the form of the DeepLab experiments, as backbones.
// What it is not: the "aligned Xception" of other code bases, whose first blocks and widths differ.
// Read next: models/xception.cpp (the table of blocks), models/deeplab_v3plus.h.
//
// Note [dilation patterns], Xception
//   Where a block loses its stride, the block itself samples at the old rate and everything behind it at the new one:
//            entry3   middle   exit1   exit2
//     OS16   stride 2   1        1       2
//     OS8    1          2        2       4
//   `multi_grid` multiplies the three rates of exit2. Padding equals the rate on all sides.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"

namespace limbeck::models {

struct XceptionOptions {
  int depth = 41;                                   ///< 41 (8 middle blocks) or 65 (16)
  std::int64_t output_stride = 32;                  ///< 32, 16, 8
  std::array<std::int64_t, 3> multi_grid{0, 0, 0};  ///< zeros: (1,1,1)
  nn::BatchNormArgs bn = {};                        ///< the published weights use eps 1e-3
};

/// Three separable convolutions with an optional shortcut.
/// Formula: entry, middle, exit1: y = s3(relu(s2(relu(s1(relu(x)))))) + shortcut(x), s = bn(pointwise(bn(depthwise(.)))); no ReLU
///          after the sum. exit2: no shortcut, ReLU after every batch norm and not before the first depthwise.
/// Shapes:  x [N, in, H, W]; returns [N, out, H/stride, W/stride]
/// Source:  Chen et al., ECCV 2018, figure 4; the released slim network
class XceptionBlock final : public nn::Module {
 public:
  enum class Shortcut : std::uint8_t { kConv, kIdentity, kNone };
  struct Args {
    std::int64_t in;
    std::array<std::int64_t, 3> widths;
    Shortcut shortcut;
    std::int64_t stride;
    std::array<std::int64_t, 3> rates;
    nn::BatchNormArgs bn;
  };
  XceptionBlock(const Args& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "XceptionBlock"; }
  /// Offers taps `name` and, of exit2, "NAME.pre_relu"; of entry2 the low-level feature "NAME.low", kept in `low` if given.
  [[nodiscard]] Tensor forward(const Tensor& x, TapSet& taps, const std::string& name, Tensor* low = nullptr);

 private:
  struct Separable {
    Separable(std::int64_t in, std::int64_t out, std::int64_t stride, std::int64_t rate, ops::Activation act,
              nn::BatchNormArgs bn, Generator& generator);
    nn::ConvBnAct depthwise;
    nn::ConvBnAct pointwise;
  };
  Shortcut shortcut_kind_;
  std::vector<std::unique_ptr<Separable>> convs_;
  std::optional<nn::ConvBnAct> shortcut_;
};

/// Xception without its classifier. Taps: "entry1" .. "entry3", "entry2.low", "middle", "exit1" (all linear), "exit2" and
/// "exit2.pre_relu".
/// Shapes: x [N, 3, H, W]; low = second convolution of entry2 (256 channels, stride 4, linear), middle (728), high = exit2 (2048)
/// Throws: ConfigError for a depth or output stride that does not exist.
/// Source: Chollet, CVPR 2017, as changed in Chen et al., ECCV 2018. Names: conv1, conv2, entryN, middle.N, exitN, below them
///         sepconv{1,2,3}.{depthwise,pointwise}.{0,1} and shortcut.{0,1}
class Xception final : public Backbone {
 public:
  Xception(const XceptionOptions& options, Generator& generator);
  using Backbone::forward;
  [[nodiscard]] std::string type() const override { return fmt::format("Xception-{}", options_.depth); }
  [[nodiscard]] Features forward(const Tensor& x, TapSet& taps) override;
  [[nodiscard]] Channels channels() const override;
  [[nodiscard]] std::int64_t output_stride() const override { return options_.output_stride; }
  [[nodiscard]] std::vector<TapInfo> tap_infos() const override { return taps_; }

 private:
  XceptionOptions options_;
  std::optional<nn::ConvBnAct> conv1_;
  std::optional<nn::ConvBnAct> conv2_;
  std::vector<std::unique_ptr<XceptionBlock>> blocks_;
  std::vector<std::string> names_;  // of blocks_
  std::vector<TapInfo> taps_;
};

}  // namespace limbeck::models
