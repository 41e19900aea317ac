// What this is: a stranger's program. It uses the installed headers and library and checks one derivative.
#include <fmt/core.h>

#include <vector>

#include "core/tensor.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

int main() {
  const auto x = limbeck::Tensor::from(std::vector<float>{1.0F, -2.0F, 3.0F}, limbeck::Shape{3});
  x.set_requires_grad(true);
  limbeck::ops::sum(limbeck::ops::mul(x, x)).backward();  // d(sum x^2)/dx = 2x
  const auto gx = x.grad().to_vector<float>();
  const bool right = gx == std::vector<float>{2.0F, -4.0F, 6.0F};
  fmt::print("consumer: an installed limbeck says d(sum x^2)/dx = [{}, {}, {}], {}\n", gx[0], gx[1], gx[2],
             right ? "right" : "WRONG");
  return right ? 0 : 1;
}
