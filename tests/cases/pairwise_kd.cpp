// Inputs for the pair-wise similarity loss.
#include "distill/pairwise_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& student, const Shape& teacher, const distill::PairwiseKdOptions& options) {
  OpCase c;
  c.op = "pairwise_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::pairwise_kd(in[0], in[1], options); };
  c.fixed = {1};
  // A norm that counts as a constant makes the gradient differ from the derivative on purpose; oracles and the composite
  // in test_similarity_kd.cpp check it.
  c.check_derivative = !options.detach_norm;
  c.kinks = true;  // ties of the maximum
  return c;
}

OpCase without_differences(OpCase c) {
  c.check_derivative = false;  // too many numbers; the small cases check the derivative
  return c;
}

}  // namespace

std::vector<OpCase> pairwise_kd_cases() {
  return {
      make("half the map, detached", {2, 3, 4, 5}, {2, 3, 4, 5}, {}),
      make("half an odd map, detached", {1, 19, 9, 7}, {1, 21, 9, 7}, {}),
      make("half the map", {2, 19, 5, 7}, {2, 32, 5, 7}, {.detach_norm = false}),
      make("2x2", {2, 11, 7, 6}, {2, 19, 7, 6}, {.scale = 0, .kernel = 2, .detach_norm = false}),
      make("no pooling", {2, 21, 5, 6}, {2, 19, 5, 6}, {.scale = 0, .kernel = 1, .detach_norm = false}),
      make("no pooling, detached", {2, 21, 5, 6}, {2, 19, 5, 6}, {.scale = 0, .kernel = 1}),
      make("C=1", {1, 1, 5, 5}, {1, 3, 5, 5}, {.scale = 0, .kernel = 1}),
      make("one position", {2, 19, 1, 1}, {2, 8, 1, 1}, {.detach_norm = false}),
      // As many positions as channels or more: products of channels with channels. Fewer: of positions.
      make("2x2, as many positions as channels", {1, 12, 5, 7}, {1, 12, 5, 7}, {.scale = 0, .kernel = 2}),
      make("2x2, fewer positions than channels", {1, 13, 5, 7}, {1, 4, 5, 7}, {.scale = 0, .kernel = 2}),
      without_differences(
          make("several runs", {1, 8, 15, 19}, {1, 8, 15, 19}, {.scale = 0, .kernel = 1, .detach_norm = false})),
      without_differences(make("3x3, several runs and panels", {1, 40, 50, 53}, {1, 70, 50, 53},
                               {.scale = 0, .kernel = 3, .detach_norm = false})),
      without_differences(make("2x2, few positions, several panels", {1, 270, 9, 11}, {1, 70, 9, 11},
                               {.scale = 0, .kernel = 2, .detach_norm = false})),
  };
}

}  // namespace limbeck::test
