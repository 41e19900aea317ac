// What this is: the student of the KA study: MobileNetV2 with image pooling and a 1x1 branch, no ASPP, no decoder.
// Read next: models/mobilenet_v2.h.
#pragma once

#include <memory>

#include "models/aspp.h"
#include "models/segmentation.h"

namespace limbeck::models {

/// "ka_student_mobilenet_v2".
/// Formula: y = classifier(dropout(relu(bn(w * [pool(x), relu(bn(v * x))])))), x = features.17
/// Shapes:  x [N, 3, H, W]; logits [N, K, H/s, W/s], s = output stride 32, 16, 8 or 4
/// Throws:  ConfigError for aux.
/// Source:  the DeepLab model zoo's mobilenetv2_dm*, which matches the paper's cost (2.741 GMACs at 513x513; the ratio of
///          output strides 16 and 4 is its "8 % FLOPS"). Names: backbone.*, aspp.image_pooling.{0,1}, aspp.conv1x1.{0,1},
///          aspp.project.{0,1}, classifier.*. Tap "head" is the 256-channel projection that KA distils.
class KaStudent final : public SegmentationModel {
 public:
  KaStudent(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;

 private:
  ImagePooling pooling_;
  nn::ConvBnAct point_;
  nn::ConvBnAct project_;
  nn::Dropout dropout_;
  nn::Conv2d classifier_;
};

}  // namespace limbeck::models
