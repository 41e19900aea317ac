// What this is: DeepLabV3: ASPP, one 3x3 convolution, a 1x1 classifier; logits at the output stride.
// Read next: models/aspp.h, models/deeplab_v3plus.h.
#pragma once

#include <memory>
#include <optional>

#include "models/aspp.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// DeepLabV3. Variants:
///   tv     torchvision: ASPP dropout 0.5, default initialisation, optional auxiliary head on the middle feature (3x3 to a quarter
///          of the channels, dropout 0.1, 1x1). At output stride 8 exactly deeplabv3_resnet50/101.
///   vf     VainF's: ASPP dropout 0.1, Kaiming initialisation, no auxiliary head.
///   tfd    TensorFlow's: no 3x3 convolution behind the ASPP, image pooling first, ASPP dropout 0.1, no auxiliary head.
///   mmseg  mmsegmentation's: 512 channels, image pooling first, a 3x3 projection and nothing behind it, dropout 0.1 of
///          channels, optional auxiliary head as tv with dropout of channels; a ResNet uses dilation pattern mmseg.
/// `separable`: the 3x3 convolutions of the ASPP's branches and behind the ASPP are depthwise separable.
/// The ASPP rates follow the output stride in all of them (torchvision and mmsegmentation have those of 8 at any: `aspp_rates`).
/// Shapes: x [N, 3, H, W]; logits and aux [N, K, H/s, W/s], s = output stride
/// Throws: ConfigError for an unknown variant, ASPP rates that are not positive, or aux with vf or tfd.
/// Source: Chen et al., arXiv 1706.05587; names backbone.*, classifier.{0,1,2,4}.*, aux_classifier.{0,1,4}.*
class DeepLabV3 final : public SegmentationModel {
 public:
  DeepLabV3(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;
  [[nodiscard]] bool has_aux() const override { return aux_.has_value(); }

 private:
  std::int64_t width_;
  Aspp aspp_;
  std::unique_ptr<HeadConv> conv_;  // tv, vf
  nn::Conv2d classifier_;
  std::optional<FcnHead> aux_;
};

/// True for variant mmseg of deeplabv3, deeplabv3plus and pspnet, whose ResNets have a dilation pattern of their own.
/// Shapes: none
[[nodiscard]] inline bool is_mmseg(const ModelSpec& spec) { return spec.variant == "mmseg"; }

}  // namespace limbeck::models
