// What this is: stochastic gradient descent with momentum, as every recipe of the segmentation papers uses it.
#pragma once

#include "nn/optim.h"

namespace limbeck::nn {

struct SgdOptions {
  double momentum = 0.9;
  bool nesterov = false;
};

/// SGD with momentum and L2 weight decay.
/// Formula: g += weight_decay * w;  v = momentum * v + g;  w -= lr * v      (Nesterov: w -= lr * (g + momentum * v))
/// Shapes:  parameters of any shape; v like its parameter, zero at the beginning
/// Types:   f32 or f64
/// Throws:  momentum outside [0, 1); Nesterov without momentum.
/// Source:  the behaviour of torch.optim.SGD with dampening 0: the rate is outside v, so a new rate acts at once.
class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<ParameterGroup> groups, SgdOptions options);
  [[nodiscard]] std::string type() const override { return "SGD"; }

 protected:
  void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<float>& piece) const override;
  void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<double>& piece) const override;
  [[nodiscard]] std::array<double, 3> step_numbers(const ParameterGroup& group, double lr,
                                                   std::int64_t count) const override;
  void update(const DeviceUpdates& updates, const ParameterGroup& group, const StepNumbers& numbers) const override;

 private:
  SgdOptions options_;
};

}  // namespace limbeck::nn
