// What this is: Adam with decoupled weight decay; used for discriminators and quick experiments.
#pragma once

#include "nn/optim.h"

namespace limbeck::nn {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
};

/// Adam with decoupled weight decay; weight decay 0 gives plain Adam.
/// Formula: w *= 1 - lr * weight_decay;  m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2;
///          w -= lr / (1-b1^t) * m / (sqrt(v) / sqrt(1-b2^t) + eps),  t = number of updates of this parameter
/// Shapes:  parameters of any shape; m and v like their parameter, zero at the beginning
/// Types:   f32 or f64
/// Throws:  betas outside [0, 1) or eps <= 0.
/// Source:  Loshchilov and Hutter, ICLR 2019, algorithm 2; the behaviour of torch.optim.AdamW.
class AdamW final : public Optimizer {
 public:
  explicit AdamW(std::vector<ParameterGroup> groups, AdamWOptions options = {});
  [[nodiscard]] std::string type() const override { return "AdamW"; }

 protected:
  void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<float>& piece) const override;
  void update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<double>& piece) const override;
  [[nodiscard]] std::array<double, 3> step_numbers(const ParameterGroup& group, double lr,
                                                   std::int64_t count) const override;
  void update(const DeviceUpdates& updates, const ParameterGroup& group, const StepNumbers& numbers) const override;

 private:
  AdamWOptions options_;
};

}  // namespace limbeck::nn
