// Inputs for the partial distance of overhaul distillation.
#include "distill/ofd_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& shape) {
  OpCase c;
  c.op = "ofd_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3),
                               random_uniform(g, {shape[1]}, -1.5, -0.25)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::ofd_kd(in[0], in[1], in[2]); };
  c.fixed = {1, 2};
  c.kinks = true;  // at the margin, and where a rounded student passes it
  return c;
}

/// Too large a sum for finite differences; the small cases check the derivative.
OpCase several_blocks() {
  OpCase c = make("several blocks", {1, 32, 33, 31});
  c.check_derivative = false;
  return c;
}

}  // namespace

std::vector<OpCase> ofd_kd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}), make("C=19", {2, 19, 7, 9}),         make("C=21, N=1", {1, 21, 5, 5}),
      make("C=1", {2, 1, 5, 7}), make("one position", {2, 11, 1, 1}), several_blocks(),
  };
}

}  // namespace limbeck::test
