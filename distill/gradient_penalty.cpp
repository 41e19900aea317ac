// What this is: distill/gradient_penalty.h.
#include "distill/gradient_penalty.h"

#include <limits>

#include "core/autograd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace limbeck::distill {
namespace {

constexpr double kLeastNorm = 1e-12;

}  // namespace

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

Tensor add_gradient_penalty(models::Discriminator& discriminator, const Tensor& x_in, double weight) {
  const Tensor x = x_in.detach();
  x.set_requires_grad(true);
  {
    const GradientSwitch off(discriminator, false);  // this pass is for x alone
    ops::sum(discriminator(x)).backward();
  }
  const Tensor g = x.grad();
  const Tensor norm = ops::sqrt(ops::sum(ops::square(g), {1, 2, 3}, true));
  // Where the slope is 0 its factor is large and finite, and the product is 0.
  const Tensor inverse = ops::pow_scalar(ops::clamp(norm, kLeastNorm, std::numeric_limits<double>::infinity()), -1);
  const Tensor scale = ops::mul_scalar(ops::add_scalar(ops::neg(inverse), 1), 2 / static_cast<double>(g.size(0)));
  const Tensor slope = ops::sum(discriminator.tangent(x, ops::mul(g, scale)));
  ops::mul_scalar(slope, weight).backward();
  return ops::mean(ops::square(ops::add_scalar(norm, -1)));
}

}  // namespace limbeck::distill
