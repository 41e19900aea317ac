// Inputs for the category-wise similarity loss.
#include "distill/csd_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& shape, double tau) {
  OpCase c;
  c.op = "csd_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::csd_kd(in[0], in[1], {.tau = tau}); };
  c.fixed = {1};
  c.f32_tolerance = 5e-5;
  return c;
}

}  // namespace

std::vector<OpCase> csd_kd_cases() {
  return {
      make("C=3, tau 1", {2, 3, 4, 5}, 1),   make("C=19, odd size", {1, 19, 7, 5}, 0.5),
      make("C=11, tau 4", {2, 11, 6, 6}, 4), make("C=21, several runs", {1, 21, 37, 41}, 1),
      make("C=1", {2, 1, 5, 7}, 1),          make("one position", {2, 19, 1, 1}, 4),
  };
}

}  // namespace limbeck::test
