// What this is: PSPNet: pyramid pooling, one 3x3 convolution, a 1x1 classifier; logits at the output stride.
// Read next: models/head_conv.h, models/deeplab_v3.h.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/head_conv.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// PSPNet; published at output stride 8. Variants:
///   td        order and widths of the SKD and CWD experiments: concat (pooled 1, 2, 3, 6, input); align_corners; auxiliary head with
///             bias and half of the channels; a ResNet uses dilation pattern td. Plain batch norm and ReLU.
///   td_leaky  the same with leaky ReLU 0.01 behind pyramid, bottleneck and auxiliary convolution, as released
///   mmseg     mmsegmentation's: input first; no align_corners; auxiliary head without bias and a quarter of the channels; pattern mmseg
/// Width c of the branches and the bottleneck: a quarter of the backbone's channels (512 for ResNet-50/101, 128 for ResNet-18/34).
/// Formula: y = classifier(dropout2d(relu(bn(w * [p1, p2, p3, p6, x])))), pk = resize(relu(bn(w_k * pool_k(x)))), pool_k to k x k
/// Shapes:  x [N, 3, H, W]; logits and aux [N, K, H/s, W/s], s = output stride. Taps "ppm" (the concatenation), "bottleneck" and
///          "bottleneck.pre_relu", which are also called "head".
/// Throws:  ConfigError for an unknown variant; training with N = 1, where pooling to 1x1 leaves one value per channel.
/// Source:  Zhao et al., CVPR 2017, figure 3. Names: backbone.*, classifier.stages.{0..3}.{0,1}, classifier.bottleneck.{0,1},
///          classifier.classifier, aux_classifier.{0,1,4}
class PspNet final : public SegmentationModel {
 public:
  PspNet(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

  enum class Variant : std::uint8_t { kTd, kTdLeaky, kMmseg };

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;
  [[nodiscard]] bool has_aux() const override { return aux_.has_value(); }

 private:
  [[nodiscard]] Tensor pyramid(const Tensor& x);
  [[nodiscard]] Tensor bottleneck(const Tensor& x, TapSet& taps);
  Variant variant_;
  std::int64_t width_;
  std::vector<std::unique_ptr<nn::ConvBnAct>> stages_;
  std::unique_ptr<nn::ConvBnAct> bottleneck_;
  nn::Dropout2d dropout_;
  nn::Conv2d classifier_;
  std::optional<FcnHead> aux_;
};

}  // namespace limbeck::models
