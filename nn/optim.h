// What this is: parameter groups and the base of the optimizers.
// What it is not: an update rule (nn/sgd.h, nn/adamw.h) or a learning-rate schedule (nn/schedule.h): step() is told the
//   rate of this step, so an optimizer has no hidden clock.
// Read next: nn/sgd.h.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/device_update.h"
#include "nn/module.h"
#include "nn/multi_tensor.h"

namespace limbeck::nn {

/// Parameters that share a learning rate and a weight decay.
/// Names must be unique over all groups: the saved state is keyed by them.
struct ParameterGroup {
  std::vector<NamedTensor> params = {};
  double lr_multiplier = 1.0;
  double weight_decay = 0.0;
  std::string name = {};     ///< for logs: "backbone", "head"
  double constant_lr = 0.0;  ///< a rate that does not follow the one of step(); 0: it does

  [[nodiscard]] double rate(double lr) const noexcept { return constant_lr > 0 ? constant_lr : lr * lr_multiplier; }
};

/// Puts each parameter of `module` that requires a gradient into the group `choose(name)` (an index into `groups`;
/// -1 leaves it out). `prefix` is prepended to the names, e.g. "student." and "adapter." when modules are trained together.
/// Shapes: any
void assign_parameters(std::span<ParameterGroup> groups, const Module& module,
                       const std::function<int(const NamedTensor&)>& choose, const std::string& prefix = "");

/// True for parameters that are usually left without weight decay: biases and batch-norm weights, i.e. vectors.
/// Shapes: any
[[nodiscard]] bool is_vector_parameter(const NamedTensor& p) noexcept;

/// Base of SGD and AdamW. Updates all parameters in place in one parallel pass.
/// Shapes: parameters and gradients of any shape, f32 or f64, dense
/// Throws: parameters repeated, frozen, or of another type; from step(): a gradient of another type.
class Optimizer {
 public:
  explicit Optimizer(std::vector<ParameterGroup> groups);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  [[nodiscard]] virtual std::string type() const = 0;
  /// Updates every parameter that has a gradient; others keep value and state (as in PyTorch). The rate of a group is
  /// lr * lr_multiplier, or its own. Gradients are left alone.
  void step(double lr);
  /// The rate of the step that is about to be replayed (core/step_graph.h).
  void set_rate(double lr) noexcept { rate_ = lr; }
  /// The same for optimizers that nobody tells it: `rate` knows the rate of every step.
  void set_rate_of_steps(std::function<double(std::int64_t step)> rate) { rate_of_steps_ = std::move(rate); }
  /// Forgets all gradients (undefined, not zero).
  void zero_grad();

  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::vector<ParameterGroup>& groups() noexcept { return groups_; }
  [[nodiscard]] std::vector<Tensor> parameters() const;

  /// "steps" (i64) and per parameter "SLOT.NAME", e.g. "momentum.backbone.conv1.weight". Shares memory with the optimizer.
  [[nodiscard]] StateDict state_dict() const;
  /// Exact restore. Throws one WeightsError naming every missing, unexpected and misshapen entry.
  void load_state_dict(const StateDict& state);

 protected:
  /// One parameter with everything an update needs.
  struct Entry {
    std::string name;
    std::size_t group;
    Tensor param;
    std::vector<Tensor> slots;  // momentum and the like
    std::int64_t updates = 0;   // number of steps this parameter took part in
  };
  /// Flat arrays of one chunk, ready for a loop.
  template <class T>
  struct Piece {
    T* param;
    const T* grad;
    std::span<T* const> slots;
    std::int64_t count;
  };

  /// Called by the subclass's constructor: a zero tensor per parameter for every name.
  void add_slots(std::vector<std::string> names);
  /// Updates one chunk. `entry.updates` already counts this step.
  virtual void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<float>& piece) const = 0;
  virtual void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<double>& piece) const = 0;
  /// What the rule for whole parameters on a GPU needs to know of a step: their rate, and their `count` of updates including
  /// this one.
  [[nodiscard]] virtual std::array<double, 3> step_numbers(const ParameterGroup& group, double lr,
                                                           std::int64_t count) const = 0;
  /// The update itself, of parameters that are all of `group`.
  virtual void update(const DeviceUpdates& updates, const ParameterGroup& group, const StepNumbers& numbers) const = 0;

 private:
  template <class T>
  void update_chunk(const Chunk& chunk, double lr) const;
  void update_on_device(Device device);
  [[nodiscard]] StepNumbers numbers_of(std::size_t entry) const;
  void count_update(std::size_t entry, std::int64_t times);

  std::vector<ParameterGroup> groups_;
  std::vector<Entry> entries_;
  std::vector<std::string> slot_names_;
  std::int64_t steps_ = 0;
  double rate_ = 0;  // of the step under way
  std::function<double(std::int64_t step)> rate_of_steps_;
  // Reused by every step, so that a step allocates nothing.
  std::vector<Chunk> chunks_;
  std::vector<Tensor> grads_;
  DeviceUpdates device_updates_;
};

/// "sgd" or "adamw".
struct OptimizerOptions {
  std::string name = "sgd";
  double momentum = 0.9;  ///< sgd
  bool nesterov = false;  ///< sgd
  double beta1 = 0.9;     ///< adamw
  double beta2 = 0.999;   ///< adamw
  double eps = 1e-8;      ///< adamw
};

/// Shapes: any
/// Throws: ConfigError for an unknown name.
[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                                        std::vector<ParameterGroup> groups);

}  // namespace limbeck::nn
