// Inputs for the channel-wise distillation loss.
#include "distill/channel_kd.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::ChannelKdNorm;
using distill::ChannelKdOptions;

OpCase make(const char* label, const Shape& shape, const ChannelKdOptions& options = {}) {
  OpCase c;
  c.op = "channel_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::channel_kd(in[0], in[1], options); };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> channel_kd_cases() {
  return {
      make("C=3, tau 1", {2, 3, 4, 5}, {.tau = 1}),
      make("C=19, tau 4", {2, 19, 7, 9}),
      make("C=11, N=1", {1, 11, 5, 13}, {.tau = 2}),
      make("C=21, cross-entropy form", {2, 21, 5, 5}, {.cross_entropy_form = true}),
      make("C=64, a feature map", {1, 64, 6, 7}),
      make("C=1", {2, 1, 13, 11}),
      make("one position", {2, 19, 1, 1}),
      make("several chunks", {1, 19, 40, 61}),
      make("C=19, pixels in eights", {3, 19, 8, 10}),
      make("C=6, pixels in fours", {2, 6, 2, 6}),
      make("divided by other channels", {2, 12, 5, 6}, {.divide_by_channels = 5}),
      make("norm spatial", {2, 19, 5, 7}, {.tau = 2, .norm = ChannelKdNorm::kSpatial}),
      make("norm none", {2, 11, 5, 7}, {.norm = ChannelKdNorm::kNone}),
      make("norm channel_mean", {3, 8, 5, 7}, {.norm = ChannelKdNorm::kChannelMean}),
  };
}

}  // namespace limbeck::test
