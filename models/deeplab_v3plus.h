// What this is: DeepLabV3+: ASPP and a decoder that adds a low-level feature; logits at stride 4.
// Read next: models/aspp.h.
#pragma once

#include <memory>
#include <optional>

#include "models/aspp.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// DeepLabV3+. Variants:
///   jf     the form of the AICSD experiments: ASPP dropout 0.5; concat (ASPP, low); 3x3, dropout 0.5, 3x3, dropout 0.1, 1x1;
///          resize with align_corners; a ResNet backbone uses dilation pattern jf. Their distillation runs leave the dropout of
///          the ASPP out, and only that one: `aspp_dropout` 0.
///   vf     VainF's: ASPP dropout 0.1; concat (low, ASPP); one 3x3, 1x1; resize without align_corners; pattern tv.
///   tfd    TensorFlow's: image pooling first in the ASPP, dropout 0.1 behind it and nowhere else; concat (ASPP, low); two 3x3, 1x1;
///          align_corners; pattern tv.
///   mmseg  mmsegmentation's: 512 channels, always separable; image pooling first, plain 3x3 projection; concat (ASPP, low); two
///          3x3, dropout 0.1 of channels, 1x1; no align_corners; pattern mmseg; optional auxiliary head.
/// `separable`: the 3x3 convolutions of the ASPP's branches and of the decoder are depthwise separable.
/// Formula: y = classifier(refine([resize(aspp(high)), relu(bn(w * low))])), low reduced to 48 channels
/// Shapes:  x [N, 3, H, W]; logits [N, K, H/4, W/4]; aux [N, K, H/s, W/s], s = output stride
/// Throws:  ConfigError for an unknown variant, ASPP rates that are not positive, aux with another variant than mmseg, or an
///          ASPP dropout with mmseg, which has none.
/// Source:  Chen et al., ECCV 2018, figure 2. Names: backbone.*, classifier.aspp.*, classifier.project.{0,1} (the low-level
///          reduction), classifier.classifier.N, aux_classifier.{0,1,4}
class DeepLabV3Plus final : public SegmentationModel {
 public:
  DeepLabV3Plus(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

  enum class Variant : std::uint8_t { kJf, kVf, kTfd, kMmseg };

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;
  [[nodiscard]] std::int64_t logit_stride() const override { return 4; }
  [[nodiscard]] bool has_aux() const override { return aux_.has_value(); }

 private:
  Variant variant_;
  std::int64_t width_;
  Aspp aspp_;
  nn::ConvBnAct project_;
  HeadConv conv1_;
  nn::Dropout dropout1_;           // jf
  std::optional<HeadConv> conv2_;  // all but vf
  nn::Dropout dropout2_;           // jf
  nn::Dropout2d dropout2d_;        // mmseg
  nn::Conv2d classifier_;
  std::optional<FcnHead> aux_;
};

/// The variant a spec names, jf by default.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] DeepLabV3Plus::Variant decoder_variant(const ModelSpec& spec);

}  // namespace limbeck::models
