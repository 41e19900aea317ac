// What this is: what all segmentation networks share: a backbone called "backbone", a head, the taps of both.
// Read next: models/deeplab_v3.h, models/deeplab_v3plus.h, models/ka_student.h.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/spec_options.h"

namespace limbeck::models {

/// Builds the backbone called "resnet18|34|50|101", "mobilenet_v1", "mobilenet_v2", "xception41" or "xception65".
/// `resnet_default`: dilation pattern of a ResNet where the spec names none; the others' default is always tv.
/// Shapes: none
/// Throws: ConfigError for another name or options the backbone does not have.
[[nodiscard]] std::unique_ptr<Backbone> make_backbone(const std::string& name, const ModelSpec& spec,
                                                      Dilation resnet_default, Generator& generator);

/// Backbone and head. Taps of every segmentation network:
///   those of the backbone;
///   "head"             input of the last 1x1 convolution, after ReLU and before dropout
///   "head.pre_relu"    the same before ReLU
///   "logits", and "aux" where there is an auxiliary head
/// DeepLab heads add "aspp" and "aspp.pre_relu", PSPNet "ppm", "bottleneck" and "bottleneck.pre_relu".
/// Shapes: x [N, 3, H, W]; logits [N, K, h, w]
class SegmentationModel : public Model {
 public:
  [[nodiscard]] std::string type() const override { return spec().name; }
  [[nodiscard]] Output forward(const Tensor& x, std::span<const std::string> taps = {}) final;
  [[nodiscard]] std::vector<TapInfo> tap_infos() const final;
  [[nodiscard]] std::vector<std::string> tap_names() const final { return names_of(tap_infos()); }
  [[nodiscard]] Backbone& backbone() noexcept { return *backbone_; }

 protected:
  SegmentationModel(const ModelSpec& spec, std::unique_ptr<Backbone> backbone);
  /// Fills out.logits (and out.aux), and offers the head's taps except "logits" and "aux".
  virtual void run_head(const Features& features, TapSet& taps, Output& out) = 0;
  /// Taps that run_head offers.
  [[nodiscard]] virtual std::vector<TapInfo> head_taps() const = 0;
  /// Input size / logit size.
  [[nodiscard]] virtual std::int64_t logit_stride() const { return backbone_->output_stride(); }
  [[nodiscard]] virtual bool has_aux() const { return false; }
  [[nodiscard]] const Backbone& backbone() const noexcept { return *backbone_; }

 private:
  std::unique_ptr<Backbone> backbone_;
};

/// {NAME, NAME.pre_relu}
/// Shapes: none
[[nodiscard]] std::vector<TapInfo> relu_taps(const std::string& name, std::int64_t channels, std::int64_t stride);

/// A backbone and a 1x1 convolution, nothing else: "mobilenet_v2_seg". The smallest network here, used by the benchmarks.
/// Shapes: x [N, 3, H, W]; logits [N, K, H/s, W/s], s = output stride
class PlainSegmentation final : public SegmentationModel {
 public:
  PlainSegmentation(const ModelSpec& spec, std::unique_ptr<Backbone> backbone, Generator& generator);

 protected:
  void run_head(const Features& features, TapSet& taps, Output& out) override;
  [[nodiscard]] std::vector<TapInfo> head_taps() const override;

 private:
  nn::Conv2d classifier_;
};

}  // namespace limbeck::models
