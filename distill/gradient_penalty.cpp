// What this is: distill/gradient_penalty.h.
#include "distill/gradient_penalty.h"

#include <algorithm>
#include <cmath>

#include "core/autograd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace limbeck::distill {

GradientSwitch::GradientSwitch(const nn::Module& module, bool on) : on_(on) {
  for (const Tensor& p : module.parameters()) {
    if (p.requires_grad() == on) continue;
    p.set_requires_grad(on);
    changed_.push_back(p);
  }
}

GradientSwitch::~GradientSwitch() {
  for (const Tensor& p : changed_) p.set_requires_grad(!on_);
}

double add_gradient_penalty(models::Discriminator& discriminator, const Tensor& x_in, double weight) {
  const Tensor x = x_in.detach();
  x.set_requires_grad(true);
  {
    const GradientSwitch off(discriminator, false);  // this pass is for x alone
    ops::sum(discriminator(x)).backward();
  }
  const Tensor g = x.grad();
  const auto squares = ops::sum(ops::square(g), {1, 2, 3}).to_vector<double>();
  const auto samples = static_cast<double>(squares.size());
  std::vector<double> scales;
  double penalty = 0;
  for (const double square : squares) {
    const double norm = std::sqrt(square);
    penalty += (norm - 1) * (norm - 1) / samples;
    scales.push_back(norm > 0 ? 2 * (1 - 1 / norm) / samples : 0);
  }
  const Tensor scale = Tensor::from(scales, {g.size(0), 1, 1, 1}).copy_as(g.dtype()).to(g.device());
  const Tensor slope = ops::sum(discriminator.tangent(x, ops::mul(g, scale)));
  ops::mul_scalar(slope, weight).backward();
  return penalty;
}

}  // namespace limbeck::distill
