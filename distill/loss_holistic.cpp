// Holistic distillation as a term of a configuration: a discriminator learns to tell the teacher's score maps from the
// student's, and the student learns to be taken for the teacher. The loss owns the discriminator and its optimizer.
//
// Note [two games in one step]
//   evaluate() is the student's side: -mean D(S), with the discriminator's parameters held fixed, and it keeps the maps
//   of the step. after_step() is the discriminator's side, on those maps, after the student's optimizer has moved. The
//   trainer never sees the discriminator's parameters, because outside of after_step() they require no gradient.
// Note [resume of the discriminator]
//   Everything is in buffers and parameters of this module, hence in checkpoints: weights, batch statistics, power
//   iteration vectors, the optimizer's moments (shared memory) and its number of steps. The optimizer adopts a number
//   of steps that came from a file at the next after_step(). The mixing factors of WGAN-GP are a function of (seed,
//   step).
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/log.h"
#include "core/rng.h"
#include "core/step_graph.h"
#include "distill/check_pair.h"
#include "distill/draws.h"
#include "distill/gradient_penalty.h"
#include "distill/loss_makers.h"
#include "models/discriminator.h"
#include "nn/optim.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kSmallestMap = 64;

struct HolisticOptions {
  bool wgan = false;  ///< hinge otherwise
  double lr = 4e-4;
  bool sgd = false;  ///< Adam otherwise
  double beta1 = 0.9;
  double beta2 = 0.99;
  double momentum = 0.9;       ///< SGD
  double weight_decay = 5e-4;  ///< SGD
  double power = 0.9;          ///< of the polynomial decay; 0: constant
  double weight = 0.1;         ///< of the discriminator's loss
  double penalty = 10;         ///< of the gradient, WGAN-GP
  std::int64_t size = 0;       ///< maps are resized to size x size; 0: as they are
};

class HolisticLoss final : public Loss {
 public:
  explicit HolisticLoss(HolisticOptions options) : options_(options) {}

  void connect(const LossContext& context) override {
    require_channels("holistic", context);
    seed_ = context.seed;
    Generator generator(context.seed);
    discriminator_.emplace(context.student.channels, generator);
    register_module("discriminator", *discriminator_);
    std::vector<nn::ParameterGroup> groups(1);
    groups[0].params = discriminator_->named_parameters();
    groups[0].weight_decay = options_.sgd ? options_.weight_decay : 0.0;
    optimizer_ = nn::make_optimizer({.name = options_.sgd ? "sgd" : "adamw",
                                     .momentum = options_.momentum,
                                     .beta1 = options_.beta1,
                                     .beta2 = options_.beta2},
                                    std::move(groups));
    register_optimizer();
    for (const Tensor& p : discriminator_->parameters()) p.set_requires_grad(false);
  }

  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    LIMBECK_CHECK(discriminator_.has_value(), "holistic", "connect() was not called");
    check_pair("holistic", student, teacher);
    const Tensor s = resized(student);
    if (s.size(2) < kSmallestMap || s.size(3) < kSmallestMap) {
      fail<ConfigError>(
          "holistic",
          "score maps {}, but the discriminator wants H, W >= {}; give the term `size: 65`, or use a larger "
          "crop or a finer output stride",
          s.shape(), kSmallestMap);
    }
    // Several batches may be accumulated into one step.
    if (is_training()) {
      maps_.push_back({s.detach(), resized(teacher)});
      if (StepGraph* graph = StepGraph::current()) {
        graph->on_replay([this](std::int64_t times) {
          if (times < 0) maps_.clear();  // of a recording that failed
        });
      }
    }
    return ops::neg(ops::mean((*discriminator_)(s)));
  }

  void after_step(std::int64_t step, std::int64_t total_steps) override {
    if (maps_.empty()) return;  // the term had no weight in this step
    restore_optimizer();
    const GradientSwitch on(*discriminator_, true);
    optimizer_->zero_grad();
    const double share = options_.weight / static_cast<double>(maps_.size());
    for (std::size_t i = 0; i < maps_.size(); ++i) {
      const Tensor s = maps_[i].student.copy_as(DType::kF32);
      const Tensor t = maps_[i].teacher.copy_as(DType::kF32);
      ops::mul_scalar(discriminator_loss(t, s), share).backward();
      if (options_.wgan) add_gradient_penalty(*discriminator_, mixed(t, s, step, i), share * options_.penalty);
    }
    const auto rate_at = [this, total_steps](std::int64_t at) { return rate(at, total_steps); };
    optimizer_->set_rate_of_steps(rate_at);
    optimizer_->step(rate_at(step));
    optimizer_->zero_grad();
    const auto count = [this](std::int64_t) { *steps_.data<std::int64_t>() = optimizer_->steps(); };
    count(1);
    if (StepGraph* graph = StepGraph::current()) graph->on_replay(count);
    maps_.clear();
  }

  [[nodiscard]] std::string type() const override { return "Holistic"; }
  [[nodiscard]] std::string describe() const override {
    const std::string optimizer =
        options_.sgd ? fmt::format("sgd lr={} momentum={} weight decay={}", format_short(options_.lr),
                                   format_short(options_.momentum), format_short(options_.weight_decay))
                     : fmt::format("adam lr={} betas={},{}", format_short(options_.lr), format_short(options_.beta1),
                                   format_short(options_.beta2));
    return fmt::format("holistic form={}{}, discriminator: {} {}, weight {}{}", options_.wgan ? "wgan_gp" : "hinge",
                       options_.wgan ? fmt::format(" penalty={}", format_short(options_.penalty)) : "", optimizer,
                       options_.power > 0 ? fmt::format("poly {}", format_short(options_.power)) : "constant",
                       format_short(options_.weight),
                       options_.size > 0 ? fmt::format(", maps resized to {0}x{0}", options_.size) : "");
  }

 private:
  struct Maps {
    Tensor student, teacher;
  };

  [[nodiscard]] double rate(std::int64_t step, std::int64_t total_steps) const {
    const double progress = static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(total_steps, 1));
    return options_.lr * std::pow(std::max(0.0, 1 - progress), options_.power);
  }

  [[nodiscard]] Tensor resized(const Tensor& x) const {
    return options_.size > 0 ? ops::resize_bilinear(x, {options_.size, options_.size}, false) : x;
  }

  [[nodiscard]] Tensor discriminator_loss(const Tensor& teacher, const Tensor& student) {
    const Tensor real = (*discriminator_)(teacher);
    const Tensor fake = (*discriminator_)(student);
    if (options_.wgan) return ops::sub(ops::mean(fake), ops::mean(real));
    const auto hinge = [](const Tensor& x) { return ops::mean(ops::relu(ops::add_scalar(x, 1))); };
    return ops::add(hinge(ops::neg(real)), hinge(fake));
  }

  /// a T + (1 - a) S, one a per sample.
  [[nodiscard]] Tensor mixed(const Tensor& teacher, const Tensor& student, std::int64_t step, std::size_t batch) const {
    const auto stream = [batch](std::int64_t at) {
      return mix_stream(kMixStream, static_cast<std::uint64_t>(at), batch);
    };
    if (StepGraph* graph = StepGraph::current()) graph->random_stream(stream);
    const Tensor share = draw_uniform({teacher.size(0), 1, 1, 1}, Generator(seed_, stream(step)), teacher.device());
    return ops::add(student, ops::mul(ops::sub(teacher, student), share));
  }

  [[nodiscard]] static bool is_counter(const std::string& name) {
    return name == "steps" || name.starts_with("updates.");
  }

  void register_optimizer() {
    for (const auto& [name, tensor] : optimizer_->state_dict()) {
      if (!is_counter(name)) moments_.emplace_back(name, tensor);
    }
    for (auto& [name, tensor] : moments_) register_buffer("optimizer." + name, tensor);
    register_buffer("optimizer.steps", steps_);
  }

  void restore_optimizer() {
    const std::int64_t steps = *steps_.data<std::int64_t>();
    if (steps == optimizer_->steps()) return;
    nn::StateDict state = optimizer_->state_dict();
    for (auto& [name, tensor] : state) {
      // Every parameter takes part in every step.
      if (is_counter(name)) tensor = Tensor::from(std::vector<std::int64_t>{steps}, {1});
    }
    optimizer_->load_state_dict(state);
  }

  static constexpr std::uint64_t kMixStream = 0xA0;  // stream 0 fills the weights
  HolisticOptions options_;
  std::uint64_t seed_ = 0;
  std::optional<models::Discriminator> discriminator_;
  std::unique_ptr<nn::Optimizer> optimizer_;
  std::vector<std::pair<std::string, Tensor>> moments_;
  Tensor steps_ = Tensor::from(std::vector<std::int64_t>{0}, {1});
  std::vector<Maps> maps_;
};

}  // namespace

std::shared_ptr<Loss> make_holistic(const Config& term) {
  HolisticOptions o;
  o.wgan = term.choice("form", "hinge", {"hinge", "wgan_gp"}) == "wgan_gp";
  o.lr = term.get_in_range<double>("lr", o.lr, 0.0, 1.0);
  o.sgd = term.choice("optimizer", "adam", {"adam", "sgd"}) == "sgd";
  if (o.sgd) {
    o.momentum = term.get_in_range<double>("momentum", o.momentum, 0.0, 0.999999);
    o.weight_decay = term.get_in_range<double>("weight_decay", o.weight_decay, 0.0, 1.0);
  } else {
    o.beta1 = term.get_in_range<double>("beta1", o.beta1, 0.0, 0.999999);
    o.beta2 = term.get_in_range<double>("beta2", o.beta2, 0.0, 0.999999);
  }
  o.power = term.get_in_range<double>("power", o.power, 0.0, 10.0);
  o.weight = term.get_in_range<double>("discriminator_weight", o.weight, 0.0, 1e6);
  if (o.wgan) o.penalty = term.get_in_range<double>("penalty", o.penalty, 0.0, 1e6);
  o.size = term.get_in_range<std::int64_t>("size", 0, 0, 1 << 14);
  if (o.size > 0 && o.size < kSmallestMap) {
    term.reject("size",
                fmt::format("the discriminator halves its maps four times; expected 0 or at least {}", kSmallestMap));
  }
  return std::make_shared<HolisticLoss>(o);
}

}  // namespace limbeck::distill
