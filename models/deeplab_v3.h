// What this is: DeepLabV3: ASPP, one 3x3 convolution, a 1x1 classifier; logits at the output stride.
// Read next: models/aspp.h, models/deeplab_v3plus.h.
#pragma once

#include <memory>
#include <optional>

#include "models/aspp.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// DeepLabV3. Variants:
///   tv  torchvision: ASPP dropout 0.5, default initialisation, optional auxiliary head on the middle feature
///       (3x3 to a quarter of the channels, dropout 0.1, 1x1). At output stride 8 exactly deeplabv3_resnet50/101.
///   vf  VainF's: ASPP dropout 0.1, Kaiming initialisation, no auxiliary head.
/// The ASPP rates follow the output stride in both (torchvision only knows 8).
/// Shapes: x [N, 3, H, W]; logits and aux [N, K, H/s, W/s], s = output stride
/// Throws: ConfigError for an unknown variant, or aux with vf.
/// Source: Chen et al., arXiv 1706.05587; names backbone.*, classifier.{0,1,2,4}.*, aux_classifier.{0,1,4}.*
class DeepLabV3 final : public SegmentationModel {
 public:
  DeepLabV3(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;
  [[nodiscard]] bool has_aux() const override { return aux_.has_value(); }

 private:
  struct AuxHead {
    AuxHead(std::int64_t in, std::int64_t classes, nn::BatchNormArgs bn, Generator& generator);
    nn::Conv2d conv;
    nn::BatchNorm2d bn;
    nn::Dropout dropout;
    nn::Conv2d classifier;
  };
  Aspp aspp_;
  nn::Conv2d conv_;
  nn::BatchNorm2d bn_;
  nn::Conv2d classifier_;
  std::optional<AuxHead> aux_;
};

}  // namespace limbeck::models
