#include "distill/loss.h"

#include <optional>
#include <utility>

#include "core/log.h"
#include "core/nearest_word.h"
#include "core/rng.h"
#include "distill/channel_kd.h"
#include "distill/loss_makers.h"
#include "distill/pixel_kd.h"
#include "models/connectors.h"

namespace limbeck::distill {
namespace {

class PixelKdLoss final : public Loss {
 public:
  PixelKdLoss(PixelKdOptions options, std::string reduction) : options_(options), reduction_(std::move(reduction)) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return pixel_kd(student, teacher, options_);
  }
  [[nodiscard]] std::string type() const override { return "PixelKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("pixel_kd tau={} reduction={}", format_short(options_.tau), reduction_);
  }

 private:
  PixelKdOptions options_;
  std::string reduction_;
};

/// The layers that `adapter` of channel_kd names.
std::optional<models::ConnectorArgs> channel_kd_adapter(const std::string& word, std::int64_t in, std::int64_t out) {
  if (word == "cwd") return models::cwd_feature_adapter(in, out);
  if (word == "conv") return models::ConnectorArgs{.in = in, .out = out, .bias = true};
  return std::nullopt;
}

class ChannelKdLoss final : public Loss {
 public:
  ChannelKdLoss(ChannelKdOptions options, std::string adapter, bool student_channels)
      : options_(options), adapter_name_(std::move(adapter)), student_channels_(student_channels) {}
  void connect(const LossContext& context) override {
    if (equal_channels()) return;
    require_channels("channel_kd", context);
    Generator generator(context.seed);
    adapter_.emplace(*channel_kd_adapter(adapter_name_, context.student.channels, context.teacher.channels), generator);
    register_module("adapter", *adapter_);
    if (student_channels_) options_.divide_by_channels = context.student.channels;
  }
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    LIMBECK_CHECK(adapter_.has_value() != equal_channels(), "channel_kd", "connect() was not called");
    return channel_kd(adapter_ ? (*adapter_)(student) : student, teacher, options_);
  }
  [[nodiscard]] bool equal_channels() const override { return adapter_name_ == "none"; }
  [[nodiscard]] std::string type() const override { return "ChannelKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("channel_kd {}{}", formula(),
                       equal_channels()         ? ""
                       : adapter_name_ == "cwd" ? " adapter=conv1x1+bn+relu"
                                                : " adapter=conv1x1");
  }

 private:
  [[nodiscard]] std::string formula() const {
    switch (options_.norm) {
      case ChannelKdNorm::kChannel:
        return fmt::format("tau={} (sum/(N*{}) * tau^2{})", format_short(options_.tau),
                           student_channels_ ? "student's C" : "C",
                           options_.cross_entropy_form ? ", cross-entropy form" : "");
      case ChannelKdNorm::kSpatial:
        return fmt::format("norm=spatial tau={} (sum/(N*H*W) * tau^2)", format_short(options_.tau));
      case ChannelKdNorm::kNone: return "norm=none (squared error, sum/(N*H*W))";
      case ChannelKdNorm::kChannelMean: return "norm=channel_mean (squared error, sum/(N*C))";
    }
    return "";
  }

  ChannelKdOptions options_;
  std::string adapter_name_;
  bool student_channels_;
  std::optional<models::Connector> adapter_;
};

std::shared_ptr<Loss> make_pixel_kd(const Config& term) {
  PixelKdOptions options;
  options.tau = term.get_in_range<double>("tau", 1.0, 1e-3, 1e3);
  const std::string word =
      term.choice("reduction", "per_pixel", {"mean_all", "per_pixel", "batch_mean", "skd_cross_entropy"});
  if (word == "mean_all") options.reduction = PixelKdReduction::kMeanAll;
  if (word == "batch_mean") options.reduction = PixelKdReduction::kBatchMean;
  if (word == "skd_cross_entropy") options.reduction = PixelKdReduction::kSkdCrossEntropy;
  return std::make_shared<PixelKdLoss>(options, word);
}

ChannelKdNorm read_norm(const Config& term) {
  const std::string word = term.choice("norm", "channel", {"channel", "spatial", "none", "channel_mean"});
  if (word == "spatial") return ChannelKdNorm::kSpatial;
  if (word == "none") return ChannelKdNorm::kNone;
  return word == "channel_mean" ? ChannelKdNorm::kChannelMean : ChannelKdNorm::kChannel;
}

std::shared_ptr<Loss> make_channel_kd(const Config& term) {
  ChannelKdOptions options;
  options.norm = read_norm(term);
  options.tau = term.get_in_range<double>("tau", 4.0, 1e-3, 1e3);
  options.cross_entropy_form = term.get<bool>("cross_entropy_form", false);
  const std::string adapter = term.choice("adapter", "none", {"none", "cwd", "conv"});
  const bool student_channels = term.choice("divide_by", "teacher", {"teacher", "student"}) == "student";
  const bool plain = options.norm == ChannelKdNorm::kChannel;
  if (options.cross_entropy_form && !plain) term.reject("cross_entropy_form", "only norm channel has this form");
  if (student_channels && !plain) term.reject("divide_by", "only norm channel divides by channels");
  if (student_channels && adapter == "none") {
    term.reject("divide_by", "without an adapter, student and teacher have the same channels");
  }
  return std::make_shared<ChannelKdLoss>(options, adapter, student_channels);
}

struct Entry {
  const char* name;
  std::shared_ptr<Loss> (*make)(const Config&);
};
constexpr Entry kLosses[] = {
    {"pixel_kd", make_pixel_kd},
    {"channel_kd", make_channel_kd},
    {"attention_kd", make_attention_kd},
    {"psd_kd", make_psd_kd},
    {"csd_kd", make_csd_kd},
    {"pairwise_kd", make_pairwise_kd},
    {"batch_similarity_kd", make_batch_similarity_kd},
    {"inter_channel_kd", make_inter_channel_kd},
    {"icsd", make_icsd},
    {"local_kd", make_local_kd},
    {"ifvd", make_ifvd},
    {"ofd_kd", make_ofd_kd},
    {"fitnet", make_fitnet},
    {"channel_transform", make_channel_transform},
    {"mgd", make_mgd},
    {"ka_adapt", make_ka_adapt},
    {"ka_affinity", make_ka_affinity},
    {"holistic", make_holistic},
};

}  // namespace

void require_channels(const char* loss, const LossContext& context) {
  if (context.student.channels > 0 && context.teacher.channels > 0) return;
  fail<ConfigError>(loss, "taps '{}' and '{}' do not tell their channels, which the loss's own layers need",
                    context.student.name, context.teacher.name);
}

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const auto& entry : kLosses) names.emplace_back(entry.name);
  return names;
}

std::shared_ptr<Loss> make_loss(const Config& term) {
  const auto name = term.get<std::string>("loss");
  for (const auto& entry : kLosses) {
    if (name == entry.name) return entry.make(term);
  }
  const auto names = loss_names();
  const std::string near = nearest_word(name, names);
  term.reject("loss",
              fmt::format("unknown loss '{}'{}; known: {}", name,
                          near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", ")));
}

}  // namespace limbeck::distill
