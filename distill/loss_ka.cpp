// The losses of knowledge adaptation as terms of a configuration. Each owns its adapter on the student: C_f (3x3
// convolution, batch norm, ReLU) for the adaptation, C_a (3x3 convolution with bias) for the affinity, from the
// student's channels to those of the teacher's map, which is meant to be the code of an autoencoder
// (distill/teacher_code.h).
#include <optional>
#include <utility>

#include "core/log.h"
#include "core/rng.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/loss_makers.h"
#include "models/connectors.h"

namespace limbeck::distill {
namespace {

/// What both terms share: the adapter.
class AdapterLoss : public Loss {
 public:
  using MakeArgs = models::ConnectorArgs (*)(std::int64_t in, std::int64_t out);
  AdapterLoss(const char* label, bool adapter, MakeArgs args) : label_(label), wanted_(adapter), args_(args) {}

  void connect(const LossContext& context) override {
    if (!wanted_) return;
    require_channels(label_, context);
    Generator generator(context.seed);
    adapter_.emplace(args_(context.student.channels, context.teacher.channels), generator);
    register_module("adapter", *adapter_);
  }

 protected:
  [[nodiscard]] Tensor adapted(const Tensor& student) {
    LIMBECK_CHECK(!wanted_ || adapter_, label_, "connect() was not called");
    return adapter_ ? (*adapter_)(student) : student;
  }
  [[nodiscard]] bool has_adapter() const noexcept { return wanted_; }
  [[nodiscard]] std::string describe_adapter(const char* kind) const {
    return fmt::format("adapter={}", wanted_ ? kind : "none");
  }

 private:
  const char* label_;
  bool wanted_;
  MakeArgs args_;
  std::optional<models::Connector> adapter_;
};

class KaAdaptLoss final : public AdapterLoss {
 public:
  KaAdaptLoss(KaAdaptOptions options, bool adapter)
      : AdapterLoss("ka_adapt", adapter, models::ka_feature_adapter), options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return ka_adapt(adapted(student), teacher, options_);
  }
  [[nodiscard]] bool equal_channels() const override { return !has_adapter(); }
  [[nodiscard]] std::string type() const override { return "KaAdapt"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("ka_adapt p={} q={} scope={} ({}) {}", format_short(options_.p), format_short(options_.q),
                       name_of(options_.scope), name_of(options_.reduction), describe_adapter("conv3x3+bn+relu"));
  }

 private:
  KaAdaptOptions options_;
};

class KaAffinityLoss final : public AdapterLoss {
 public:
  KaAffinityLoss(KaAffinityOptions options, bool adapter)
      : AdapterLoss("ka_affinity", adapter, models::ka_affinity_adapter), options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return ka_affinity(adapted(student), teacher, options_);
  }
  [[nodiscard]] bool equal_channels() const override {
    return !has_adapter() && options_.reduce == KaAffinityReduce::kTdl;
  }
  [[nodiscard]] std::string type() const override { return "KaAffinity"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("ka_affinity ({}) {}", name_of(options_.reduce), describe_adapter("conv3x3"));
  }

 private:
  KaAffinityOptions options_;
};

bool wants_adapter(const Config& term) { return term.choice("adapter", "auto", {"auto", "none"}) == "auto"; }

}  // namespace

std::shared_ptr<Loss> make_ka_adapt(const Config& term) {
  KaAdaptOptions options;
  options.p = term.get_in_range<double>("p", options.p, 1.0, 100.0);
  options.q = term.get_in_range<double>("q", options.q, 1.0, 100.0);
  if (term.choice("scope", "image", {"image", "pixel"}) == "pixel") options.scope = KaScope::kPixel;
  const std::string reduction = term.choice("reduction", "mean", {"mean", "vector_mean", "sum"});
  if (reduction == "vector_mean") options.reduction = KaReduction::kVectorMean;
  if (reduction == "sum") options.reduction = KaReduction::kSum;
  return std::make_shared<KaAdaptLoss>(options, wants_adapter(term));
}

std::shared_ptr<Loss> make_ka_affinity(const Config& term) {
  KaAffinityOptions options;
  const std::string reduce = term.choice("reduce", "mean_square", {"mean_square", "rownorm", "tdl"});
  if (reduce == "rownorm") options.reduce = KaAffinityReduce::kRowNorm;
  if (reduce == "tdl") options.reduce = KaAffinityReduce::kTdl;
  return std::make_shared<KaAffinityLoss>(options, wants_adapter(term));
}

}  // namespace limbeck::distill
