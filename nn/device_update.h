// What this is: the optimizers' update rules for parameters on a GPU, and the clipping of gradients there: one kernel for many
//   tensors, so that a step is a few launches however many small batch-norm vectors a network has.
// What it is not: public; nn/optim.cpp, nn/ema.cpp and nn/clip.cpp use it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/dtype.h"

namespace limbeck::nn {

/// f32 tensors on one device that are updated with the same numbers. Slots that a rule does not have are empty.
/// Shapes: per entry: `count` elements
struct DeviceUpdates {
  std::vector<float*> param;
  std::vector<const float*> grad;
  std::vector<float*> first, second;  // momentum, or the two averages of Adam
  std::vector<std::int64_t> count;
  std::vector<bfloat16*> rounded;  // where the new parameters also go in bf16; null or empty: nowhere

  void clear() {
    param.clear();
    grad.clear();
    first.clear();
    second.clear();
    count.clear();
    rounded.clear();
  }
};

/// The numbers of an update that change from step to step, in the order in which the rule names them first.
/// Shapes: none
struct StepNumbers {
  std::array<double, 3> values{};
  const float* recorded = nullptr;  ///< where a replay finds them on the device (core/step_graph.h); null: use `values`

  [[nodiscard]] float at(std::size_t i) const { return static_cast<float>(values.at(i)); }
};

/// The formula of nn/sgd.h; `first` is empty without momentum. The step's number is lr.
/// Shapes: none
struct SgdRule {
  float lr, weight_decay, momentum;
  bool nesterov;
};
/// The formula of nn/adamw.h: keep = 1 - lr * weight_decay, step = lr / (1 - b1^t), root = sqrt(1 - b2^t): the step's numbers.
/// Shapes: none
struct AdamWRule {
  float keep, step, root, beta1, beta2, one_minus_beta1, one_minus_beta2, eps;
};

/// Shapes: those of the updates
void sgd_update_cuda(const DeviceUpdates& updates, const SgdRule& rule, const float* recorded);
/// Shapes: those of the updates
void adamw_update_cuda(const DeviceUpdates& updates, const AdamWRule& rule, const float* recorded);
/// param = keep * param + take * grad: running averages of weights (nn/ema.h). Both are the step's numbers.
/// Shapes: none
struct AverageRule {
  float keep, take;
};
/// Shapes: those of the updates
void average_cuda(const DeviceUpdates& updates, const AverageRule& rule, const float* recorded);

/// norm = the square root of the sum of the squares of all `param`, which here are gradients; there is no `grad`.
/// Shapes: those of the updates; norm: one number on the device
void norm_cuda(const DeviceUpdates& updates, float* norm);
/// All `param` are multiplied by min(1, most / (norm + 1e-6)).
/// Shapes: as norm_cuda()
void clip_cuda(const DeviceUpdates& updates, const float* norm, double most);

}  // namespace limbeck::nn
