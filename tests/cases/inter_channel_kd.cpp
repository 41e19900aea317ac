// Inputs for the inter-channel correlation loss.
#include "distill/inter_channel_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& student, const Shape& teacher, bool squared = false) {
  OpCase c;
  c.op = "inter_channel_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) {
    return distill::inter_channel_kd(in[0], in[1], {.divide_by_n_squared = squared});
  };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> inter_channel_kd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 3, 4, 5}),
      make("C=19, / N^2", {3, 19, 5, 7}, {3, 19, 5, 7}, true),
      make("C=11, maps of other sizes", {2, 11, 5, 6}, {2, 11, 9, 7}),
      make("C=21, several runs", {1, 21, 19, 33}, {1, 21, 19, 33}),
      make("C=37", {2, 37, 9, 11}, {2, 37, 9, 11}),
      make("C=70, N=1", {1, 70, 6, 16}, {1, 70, 6, 16}),
      make("C=1", {2, 1, 5, 5}, {2, 1, 5, 5}),
      make("one position", {2, 19, 1, 1}, {2, 19, 1, 1}),
  };
}

}  // namespace limbeck::test
