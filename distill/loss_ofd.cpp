// Overhaul distillation as a term of a configuration: one stage per term. Owns the connector (1x1 convolution without bias
// and batch norm on the student) and the margin, which comes from the teacher's batch norm in front of the tap.
// Taps should be those before the ReLU ("layer3.pre_relu").
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "core/log.h"
#include "core/nearest_word.h"
#include "core/rng.h"
#include "distill/loss_makers.h"
#include "distill/ofd_kd.h"
#include "nn/layers.h"

namespace limbeck::distill {
namespace {

/// Weight and bias of a batch norm, and its full name.
struct Norm {
  std::string name;
  Tensor weight, bias;
};

/// All batch norms of `model` with `channels` channels, in the order of registration: what has running statistics.
std::vector<Norm> norms_of(const models::Model& model, std::int64_t channels) {
  constexpr std::string_view kMark = ".running_mean";
  const nn::StateDict state = model.state_dict();
  std::vector<Norm> out;
  for (const auto& [name, buffer] : model.named_buffers()) {
    if (!name.ends_with(kMark) || buffer.numel() != channels) continue;
    const std::string norm = name.substr(0, name.size() - kMark.size());
    const auto weight = state.find(norm + ".weight");
    const auto bias = state.find(norm + ".bias");
    if (weight != state.end() && bias != state.end()) out.push_back({norm, weight->second, bias->second});
  }
  return out;
}

/// "layer3.pre_relu" -> "layer3": the part of a module's name that the tap stands for.
std::string stage_of(const std::string& tap) { return tap.substr(0, tap.find(".pre_relu")); }

/// Note [margin of a tap]
///   The batch norm named by `norm`; otherwise the last one below the tap's module that has the tap's channels, shortcuts
///   ("downsample") left out. For a residual stage that is the last norm of its last block, as in the authors' code: the
///   shortcut's part of the sum is not in the margin.
Norm norm_before(const models::Model& teacher, const models::TapInfo& tap, const std::string& norm) {
  const auto norms = norms_of(teacher, tap.channels);
  const Norm* found = nullptr;
  std::vector<std::string> names;
  const std::string stage = "." + stage_of(tap.name) + ".";
  for (const Norm& n : norms) {
    names.push_back(n.name);
    const bool below =
        ("." + n.name + ".").find(stage) != std::string::npos && n.name.find("downsample") == std::string::npos;
    if (norm == "auto" ? below : n.name == norm) found = &n;
  }
  if (found == nullptr && norm == "auto") {
    fail<ConfigError>(
        "ofd_kd",
        "no batch norm of {} channels below '{}' in the teacher; name the one in front of tap '{}' with `norm:`; "
        "there are: {}",
        tap.channels, stage_of(tap.name), tap.name, fmt::join(names, ", "));
  }
  if (found == nullptr) {
    const std::string near = nearest_word(norm, names);
    fail<ConfigError>("ofd_kd", "the teacher has no batch norm '{}' of {} channels{}; there are: {}", norm,
                      tap.channels, near.empty() ? "" : fmt::format(", did you mean '{}'?", near),
                      fmt::join(names, ", "));
  }
  return *found;
}

class OfdKdLoss final : public Loss {
 public:
  OfdKdLoss(std::string norm, bool connector) : norm_(std::move(norm)), wants_connector_(connector) {}

  void connect(const LossContext& context) override {
    LIMBECK_CHECK(context.teacher_model != nullptr, "ofd_kd", "there is no teacher to take the margin from");
    if (context.student.channels <= 0 || context.teacher.channels <= 0) {
      fail<ConfigError>("ofd_kd", "taps '{}' and '{}' do not tell their channels, which the connector needs",
                        context.student.name, context.teacher.name);
    }
    const Norm norm = norm_before(*context.teacher_model, context.teacher, norm_);
    margin_ = ofd_margin(norm.weight, norm.bias);
    register_buffer("margin", margin_);
    if (!wants_connector_) return;
    Generator generator(context.seed);
    conv_.emplace(nn::ConvArgs{.in = context.student.channels, .out = context.teacher.channels, .bias = false},
                  generator);
    bn_.emplace(context.teacher.channels);
    register_module("conv", *conv_);
    register_module("bn", *bn_);
  }
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    LIMBECK_CHECK(margin_.defined(), "ofd_kd", "connect() was not called");
    return ofd_kd(conv_ ? (*bn_)((*conv_)(student)) : student, teacher, margin_);
  }
  [[nodiscard]] bool equal_channels() const override { return !wants_connector_; }
  [[nodiscard]] std::string type() const override { return "OfdKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("ofd_kd norm={} connector={} (sum/N)", norm_, wants_connector_ ? "conv1x1+bn" : "none");
  }

 private:
  std::string norm_;
  bool wants_connector_;
  Tensor margin_;
  std::optional<nn::Conv2d> conv_;
  std::optional<nn::BatchNorm2d> bn_;
};

}  // namespace

std::shared_ptr<Loss> make_ofd_kd(const Config& term) {
  return std::make_shared<OfdKdLoss>(term.get("norm", "auto"), term.get<bool>("connector", true));
}

}  // namespace limbeck::distill
