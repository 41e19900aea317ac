// What this is: DeepLabV3+: ASPP and a decoder that adds a low-level feature; logits at stride 4.
// Read next: models/aspp.h.
#pragma once

#include <memory>
#include <optional>

#include "models/aspp.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// DeepLabV3+. Variants:
///   jf  the form of the AICSD experiments: ASPP dropout 0.5; concat (ASPP, low); 3x3, dropout 0.5, 3x3, dropout 0.1, 1x1;
///       resize with align_corners; a ResNet backbone uses dilation pattern jf.
///   vf  VainF's: ASPP dropout 0.1; concat (low, ASPP); one 3x3, 1x1; resize without align_corners; pattern tv.
/// Formula: y = classifier(refine([resize(aspp(high)), relu(bn(w * low))])), low reduced to 48 channels
/// Shapes:  x [N, 3, H, W]; logits [N, K, H/4, W/4]
/// Throws:  ConfigError for an unknown variant, or aux: neither variant has an auxiliary head.
/// Source:  Chen et al., ECCV 2018, figure 2. Names: backbone.*, classifier.aspp.*, classifier.project.{0,1} (the low-level
///          reduction), classifier.classifier.N
class DeepLabV3Plus final : public SegmentationModel {
 public:
  DeepLabV3Plus(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;
  [[nodiscard]] std::int64_t logit_stride() const override { return 4; }

 private:
  bool vf_;
  Aspp aspp_;
  nn::ConvBnAct project_;
  nn::Conv2d conv1_;
  nn::BatchNorm2d bn1_;
  nn::Dropout dropout1_;
  std::optional<nn::Conv2d> conv2_;     // jf
  std::optional<nn::BatchNorm2d> bn2_;  // jf
  nn::Dropout dropout2_;
  nn::Conv2d classifier_;
};

/// True for variant vf of deeplabv3plus, false for jf (the default).
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] bool is_vf_decoder(const ModelSpec& spec);

}  // namespace limbeck::models
