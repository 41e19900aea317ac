// Inputs for the channel-wise distillation loss.
#include "distill/channel_kd.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& shape, double tau = 4.0, bool cross_entropy_form = false) {
  OpCase c;
  c.op = "channel_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) {
    return distill::channel_kd(in[0], in[1], {.tau = tau, .cross_entropy_form = cross_entropy_form});
  };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> channel_kd_cases() {
  return {
      make("C=3, tau 1", {2, 3, 4, 5}, 1),        make("C=19, tau 4", {2, 19, 7, 9}),
      make("C=11, N=1", {1, 11, 5, 13}, 2),       make("C=21, cross-entropy form", {2, 21, 5, 5}, 4, true),
      make("C=64, a feature map", {1, 64, 6, 7}), make("C=1", {2, 1, 13, 11}),
      make("one position", {2, 19, 1, 1}),        make("several chunks", {1, 19, 40, 61}),
  };
}

}  // namespace limbeck::test
