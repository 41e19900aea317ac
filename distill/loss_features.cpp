// The losses that bring the student's feature into the teacher's space and take the squared distance there: FitNets,
// the channel-wise transformation (CT) and masked generation (MGD). They differ in the layers in between, which they
// own.
#include <memory>
#include <optional>
#include <utility>

#include "core/log.h"
#include "core/rng.h"
#include "core/step_graph.h"
#include "distill/draws.h"
#include "distill/feature_mse.h"
#include "distill/loss_makers.h"
#include "models/connectors.h"
#include "ops/elementwise.h"

namespace limbeck::distill {
namespace {

const char* name_of(FeatureReduction reduction) {
  if (reduction == FeatureReduction::kPerPosition) return "sum/(N*H*W)";
  return reduction == FeatureReduction::kMean ? "mean" : "sum/N";
}

/// What the three have in common: the student's map is resized to the teacher's, never the teacher's feature.
class FeatureLoss : public Loss {
 public:
  explicit FeatureLoss(FeatureMseOptions options) : options_(options) {}
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] const char* alignment() const override { return "teacher"; }

 protected:
  [[nodiscard]] const FeatureMseOptions& options() const noexcept { return options_; }

 private:
  FeatureMseOptions options_;
};

/// Formula: feature_mse(W s, t), W a 1x1 convolution without bias, or none
class FitNetLoss final : public FeatureLoss {
 public:
  FitNetLoss(FeatureMseOptions options, bool connector) : FeatureLoss(options), wants_connector_(connector) {}
  void connect(const LossContext& context) override {
    if (!wants_connector_) return;
    require_channels("fitnet", context);
    Generator generator(context.seed);
    connector_.emplace(models::ConnectorArgs{.in = context.student.channels, .out = context.teacher.channels},
                       generator);
    register_module("connector", *connector_);
  }
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    LIMBECK_CHECK(connector_.has_value() == wants_connector_, "fitnet", "connect() was not called");
    return feature_mse(connector_ ? (*connector_)(student) : student, teacher, options());
  }
  [[nodiscard]] bool equal_channels() const override { return !wants_connector_; }
  [[nodiscard]] std::string type() const override { return "FitNet"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("fitnet connector={} ({})", wants_connector_ ? "conv1x1" : "none", name_of(options().reduction));
  }

 private:
  bool wants_connector_;
  std::optional<models::Connector> connector_;
};

/// Formula: feature_mse(W2 relu(W1 s + b1) + b2, t); one hidden layer of `hidden` channels (0: as the teacher's). With a
/// connector, a 1x1 convolution without bias comes before and W1 has as many inputs as the teacher channels.
class ChannelTransformLoss final : public FeatureLoss {
 public:
  ChannelTransformLoss(FeatureMseOptions options, std::int64_t hidden, bool connector)
      : FeatureLoss(options), hidden_(hidden), wants_connector_(connector) {}
  void connect(const LossContext& context) override {
    require_channels("channel_transform", context);
    Generator generator(context.seed);
    const std::int64_t in = wants_connector_ ? context.teacher.channels : context.student.channels;
    if (wants_connector_) {
      connector_.emplace(models::ConnectorArgs{.in = context.student.channels, .out = in}, generator);
      register_module("connector", *connector_);
    }
    mlp_.emplace(models::ChannelMlpArgs{.in = in, .out = context.teacher.channels, .hidden = hidden_}, generator);
    register_module("mlp", *mlp_);
  }
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    LIMBECK_CHECK(mlp_.has_value(), "channel_transform", "connect() was not called");
    return feature_mse((*mlp_)(connector_ ? (*connector_)(student) : student), teacher, options());
  }
  [[nodiscard]] std::optional<bool> align_corners() const override { return false; }  // as mmsegmentation resizes
  [[nodiscard]] std::string type() const override { return "ChannelTransform"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("channel_transform {}hidden={} ({})", wants_connector_ ? "connector=conv1x1 " : "",
                       hidden_ > 0 ? std::to_string(hidden_) : "teacher channels", name_of(options().reduction));
  }

 private:
  std::int64_t hidden_;
  bool wants_connector_;
  std::optional<models::Connector> connector_;
  std::optional<models::ChannelMlp> mlp_;
};

/// Formula: feature_mse(G(mask . A s), t); A a 1x1 convolution where the channels differ, mask 0 at a share of the
/// positions of every image, the same for all channels, G conv 3x3 - ReLU - conv 3x3.
/// Note [mask of a step]
///   The mask is a function of (seed, step) alone, so a resumed run sees the masks that it would have seen. Batches
///   that are accumulated into one step share a mask.
class MgdLoss final : public FeatureLoss {
 public:
  MgdLoss(FeatureMseOptions options, double masked) : FeatureLoss(options), masked_(masked) {}
  void connect(const LossContext& context) override {
    require_channels("mgd", context);
    seed_ = context.seed;
    Generator generator(context.seed);
    const std::int64_t channels = context.teacher.channels;
    if (context.student.channels != channels) {
      align_.emplace(models::ConnectorArgs{.in = context.student.channels, .out = channels, .bias = true}, generator);
      register_module("align", *align_);
    }
    generation_.emplace(models::ChannelMlpArgs{.in = channels, .out = channels, .kernel = 3}, generator);
    register_module("generation", *generation_);
  }
  Tensor forward(const Tensor&, const Tensor&, const Tensor&) override {
    fail("mgd", "its mask depends on the step; call evaluate()");
  }
  Tensor evaluate(const LossInputs& in) override {
    LIMBECK_CHECK(generation_.has_value(), "mgd", "connect() was not called");
    const Tensor aligned = align_ ? (*align_)(in.student) : in.student;
    return feature_mse((*generation_)(ops::mul(aligned, mask_of(aligned, in.step))), in.teacher, options());
  }
  [[nodiscard]] std::optional<bool> align_corners() const override { return false; }  // as mmsegmentation resizes
  [[nodiscard]] std::string type() const override { return "Mgd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("mgd masked={} ({})", format_short(masked_), name_of(options().reduction));
  }

 private:
  [[nodiscard]] Tensor mask_of(const Tensor& like, std::int64_t step) const {
    const auto stream = [](std::int64_t at) { return mix_stream(kMaskStream, static_cast<std::uint64_t>(at)); };
    if (StepGraph* graph = StepGraph::current()) graph->random_stream(stream);
    return draw_mask({like.size(0), 1, like.size(2), like.size(3)}, 1 - masked_, Generator(seed_, stream(step)),
                     like.dtype(), like.device());
  }

  static constexpr std::uint64_t kMaskStream = 0x4D;  // stream 0 fills the weights
  double masked_;
  std::uint64_t seed_ = 0;
  std::optional<models::Connector> align_;
  std::optional<models::ChannelMlp> generation_;
};

FeatureMseOptions read_options(const Config& term, const char* fallback) {
  const std::string word = term.choice("reduction", fallback, {"mean", "sum_per_image", "per_position"});
  if (word == "per_position") return {.reduction = FeatureReduction::kPerPosition};
  return {.reduction = word == "mean" ? FeatureReduction::kMean : FeatureReduction::kSumPerImage};
}

}  // namespace

std::shared_ptr<Loss> make_fitnet(const Config& term) {
  return std::make_shared<FitNetLoss>(read_options(term, "mean"), term.get<bool>("connector", true));
}

std::shared_ptr<Loss> make_channel_transform(const Config& term) {
  return std::make_shared<ChannelTransformLoss>(read_options(term, "sum_per_image"),
                                                term.get_in_range<std::int64_t>("hidden", 0, 0, 1 << 16),
                                                term.get<bool>("connector", false));
}

std::shared_ptr<Loss> make_mgd(const Config& term) {
  return std::make_shared<MgdLoss>(read_options(term, "sum_per_image"),
                                   term.get_in_range<double>("masked", 0.75, 0.0, 1.0));
}

}  // namespace limbeck::distill
