// What this is: the gradient penalty of WGAN-GP for the discriminator of holistic distillation: it keeps the slope of the
//   scores near 1. And a switch for the gradients of a module's parameters.
// What it is not: double backward. The second derivative comes from models::Discriminator::tangent; see Note [tangents] in
//   models/discriminator.h.
// Read next: distill/loss_holistic.cpp.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "models/discriminator.h"
#include "nn/module.h"

namespace limbeck::distill {

/// While alive, the parameters of a module do (or do not) require gradients; afterwards it is as before.
class GradientSwitch {
 public:
  GradientSwitch(const nn::Module& module, bool on);
  GradientSwitch(const GradientSwitch&) = delete;
  GradientSwitch& operator=(const GradientSwitch&) = delete;
  ~GradientSwitch();

 private:
  std::vector<Tensor> changed_;
  bool on_;
};

/// Adds `weight` times the gradient of the penalty to the gradients of the parameters that require one; returns the
/// penalty, a scalar on the device.
/// Formula:  P = 1/N sum_n (||g_n||_2 - 1)^2, g = d(sum of all scores)/dx
///           dP/dtheta = d/dtheta <grad_x, v> with v_n = 2/N (1 - 1/||g_n||) g_n held fixed: exact, no differences
/// Shapes:   x [N,K,H,W] as the discriminator takes it
/// Types:    f32/f64
/// Gradient: of the parameters, as described. One ordinary pass of `discriminator` (its batch statistics and power iterations
///           move on as in any pass), then one with tangents. A sample whose slope is 0 adds nothing.
/// Error:    f64 within 1e-9 of PyTorch's double backward, f32 within 2e-2 of it relative to the largest gradient (the sums of
///           four strided convolutions, as for the discriminator's own gradient).
/// Source:   Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, algorithm 1.
Tensor add_gradient_penalty(models::Discriminator& discriminator, const Tensor& x, double weight);

}  // namespace limbeck::distill
