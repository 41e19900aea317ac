// What this is: what a network is to the rest of the project: a module from an image batch to logits, with named
//   intermediate features ("taps") that a distillation loss can ask for.
// What it is not: a list of networks (models/zoo.h) or a loss.
// Read next: models/mobilenet_v2.h, then models/deeplab_v3plus.h.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory.h"
#include "core/tensor.h"
#include "nn/fused.h"
#include "nn/module.h"
#include "nn/optim.h"

namespace limbeck::models {

/// Which network, and its options. make_model() refuses an option that the network does not have.
struct ModelSpec {
  std::string name = {};  ///< see model_names() in models/zoo.h
  std::int64_t classes = 21;
  /// Of the backbone: 32, 16, 8; MobileNetV2 also 4. Classification networks: always 32.
  std::int64_t output_stride = 16;
  double width = 1.0;              ///< width multiplier of MobileNets
  std::int64_t width_divisor = 8;  ///< its channel counts are multiples of this; 1 for TensorFlow's DeepLab weights
  bool aux = false;                ///< deeplabv3, pspnet: auxiliary head on the second last stage
  double bn_eps = 1e-5;            ///< 1e-3 for weights that come from TensorFlow
  double head_bn_eps = 0;          ///< of the batch norms behind the backbone; 0: bn_eps. TensorFlow's DeepLab: 1e-5
  double bn_momentum = 0.1;
  bool relu6 = true;  ///< MobileNets: false uses ReLU
  /// Dilation pattern where strides were removed: "tv", "v1b", "mmseg", "td" or "jf"; empty: the network's default. See
  /// Note [dilation patterns] in models/resnet.h and models/mobilenet_v2.h, which knows tv and jf.
  std::string dilation = {};
  /// MobileNetV2: where its 3x3 convolutions get their border from, "depthwise" (default) or "before_expansion"; see Note
  /// [padding] in models/mobilenet_v2.h.
  std::string padding = {};
  /// Published form of the head: deeplabv3 tv (default), vf, tfd, mmseg; deeplabv3plus jf (default), vf, tfd, mmseg; pspnet td
  /// (default), td_leaky, mmseg. See models/README.md.
  std::string variant = {};
  std::string stem = {};   ///< ResNet: "7x7" (default), "deep128", "deep128_floor", "v1c"; see models/resnet.h
  bool separable = false;  ///< DeepLab heads: 3x3 convolutions become depthwise + pointwise
  /// Extra dilation factors of the three blocks of ResNet's layer4, or the three convolutions of Xception's exit2; zeros: as
  /// the dilation pattern says.
  std::array<std::int64_t, 3> multi_grid{0, 0, 0};
  double head_dropout = -1.0;  ///< dropout behind ASPP or pyramid; negative: the variant's own; 0: none in the head
  double aspp_dropout = -1.0;  ///< DeepLab heads: behind the ASPP alone; negative: as head_dropout says
  /// DeepLab heads: rates of the three 3x3 branches of the ASPP; zeros: those of the output stride. torchvision has 12, 24, 36
  /// at any.
  std::array<std::int64_t, 3> aspp_rates{0, 0, 0};

  friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

/// Result of a forward pass.
/// Shapes: logits [N, K, h, w] at the network's own stride (not resized), or [N, K] of a classification network; aux like
///         logits or undefined; taps: one entry per requested name
struct Output {
  Tensor logits;
  Tensor aux;
  std::map<std::string, Tensor> taps;
};

/// A feature map that can be asked for.
struct TapInfo {
  std::string name;
  std::int64_t channels = 0;
  std::int64_t stride = 0;  ///< input size / feature size
};

/// A network. Subclasses implement forward() and tap_infos().
/// Shapes: x [N, 3, H, W]
/// Throws: ConfigError for an unknown tap, listing the known ones.
class Model : public nn::Module {
 public:
  [[nodiscard]] std::string type() const override { return "Model"; }
  [[nodiscard]] virtual Output forward(const Tensor& x, std::span<const std::string> taps = {}) = 0;
  [[nodiscard]] virtual std::vector<std::string> tap_names() const = 0;

  /// Channels and stride of tap `name`, e.g. to size an adapter.
  [[nodiscard]] TapInfo tap_info(std::string_view name) const;
  /// All taps with channels and strides. The default knows nothing.
  [[nodiscard]] virtual std::vector<TapInfo> tap_infos() const { return {}; }
  /// What make_model() built; empty for other models.
  [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
  void set_spec(ModelSpec spec) { spec_ = std::move(spec); }

 private:
  ModelSpec spec_;
};

/// The taps of one forward pass: checks the request, then collects what layers offer.
/// Shapes: any
class TapSet {
 public:
  TapSet() = default;
  /// Throws: ConfigError for a name that `model` does not have.
  TapSet(std::span<const std::string> requested, const Model& model);
  [[nodiscard]] bool wants(std::string_view name) const noexcept;
  /// Keeps `t` if `name` was requested.
  void put(std::string_view name, const Tensor& t);
  [[nodiscard]] std::map<std::string, Tensor> take() { return std::move(found_); }

 private:
  std::span<const std::string> requested_;
  std::map<std::string, Tensor> found_;
};

/// Runs `layer` and offers its result as tap `name` and the value before the activation as "NAME.pre_relu".
/// `Layer`: nn::ConvBnAct or HeadConv (models/head_conv.h). `alias`: a second name of the same two taps.
/// Shapes: x [N, C, H, W]; returns what the layer returns
template <class Layer>
[[nodiscard]] Tensor run_tapped(Layer& layer, const Tensor& x, TapSet& taps, std::string_view name,
                                std::string_view alias = {}) {
  PooledString before(name);  // pooled: steps allocate nothing
  before += ".pre_relu";
  PooledString alias_before(alias);
  alias_before += ".pre_relu";
  Tensor y;
  if (taps.wants(before) || taps.wants(alias_before)) {
    const Tensor linear = layer.before_activation(x);
    taps.put(before, linear);
    taps.put(alias_before, linear);
    y = nn::activate(linear, layer.activation());
  } else {
    y = layer(x);
  }
  taps.put(name, y);
  taps.put(alias, y);
  return y;
}

/// Feature maps of a backbone that heads are built on.
/// Shapes: low [N, Cl, H/4, W/4]; middle, high at the output stride (middle at the one before if that is lower)
struct Features {
  Tensor low;     ///< stride 4: layer1, features.3, entry2.low
  Tensor middle;  ///< for auxiliary heads: layer3, features.13 (MobileNetV1: features.11), middle
  Tensor high;    ///< layer4, features.17 (MobileNetV1: features.13), exit2
};

/// A network without its head.
/// Shapes: x [N, 3, H, W]
class Backbone : public nn::Module {
 public:
  struct Channels {
    std::int64_t low = 0;
    std::int64_t middle = 0;
    std::int64_t high = 0;
  };
  [[nodiscard]] virtual Features forward(const Tensor& x, TapSet& taps) = 0;
  [[nodiscard]] Features forward(const Tensor& x) {
    TapSet none;
    return forward(x, none);
  }
  [[nodiscard]] virtual Channels channels() const = 0;
  [[nodiscard]] virtual std::int64_t output_stride() const = 0;
  [[nodiscard]] virtual std::vector<TapInfo> tap_infos() const = 0;
};

struct GroupOptions {
  double weight_decay = 1e-4;
  double head_lr_multiplier = 1.0;  ///< everything outside "backbone."; 10 in the AICSD recipe
  bool decay_vectors = true;        ///< false: no weight decay for biases and batch norm
};

/// Groups for an optimizer: backbone and head, each split into decayed and not decayed; empty groups are left out.
/// Shapes: any
[[nodiscard]] std::vector<nn::ParameterGroup> parameter_groups(const nn::Module& model,
                                                               const GroupOptions& options = {});

}  // namespace limbeck::models
