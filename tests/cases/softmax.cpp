// Inputs for softmax and log-softmax over channels and over space.
#include "ops/softmax.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* op, const char* label, const Shape& shape, ops::SoftmaxAxis axis, double spread = 2.0) {
  const bool logarithm = std::string_view(op) == "log_softmax";
  OpCase c;
  c.op = op;
  c.label = label;
  c.inputs = [=](Generator& g) { return std::vector<Tensor>{random_uniform(g, shape, -spread, spread)}; };
  c.forward = [=](std::span<const Tensor> in) {
    return logarithm ? ops::log_softmax(in[0], axis) : ops::softmax(in[0], axis);
  };
  return c;
}

}  // namespace

std::vector<OpCase> softmax_cases() {
  constexpr auto kChannel = ops::SoftmaxAxis::kChannel;
  constexpr auto kSpatial = ops::SoftmaxAxis::kSpatial;
  std::vector<OpCase> cases;
  for (const char* op : {"softmax", "log_softmax"}) {
    cases.push_back(make(op, "channels, C=3", {2, 3, 4, 5}, kChannel));
    cases.push_back(make(op, "channels, C=19, more than one tile", {1, 19, 7, 9}, kChannel));
    cases.push_back(make(op, "channels, C=11", {2, 11, 5, 13}, kChannel));
    cases.push_back(make(op, "channels, C=21, one pixel", {1, 21, 1, 1}, kChannel));
    cases.push_back(make(op, "channels, C=8, whole tiles", {1, 8, 8, 8}, kChannel));
    cases.push_back(make(op, "channels, C=1", {2, 1, 3, 3}, kChannel));
    cases.push_back(make(op, "channels, wide range", {1, 19, 4, 5}, kChannel, 40.0));
    cases.push_back(make(op, "channels, [N,C]", {5, 7}, kChannel));
    cases.push_back(make(op, "space, C=3", {2, 3, 4, 5}, kSpatial));
    cases.push_back(make(op, "space, C=19", {2, 19, 7, 9}, kSpatial));
    cases.push_back(make(op, "space, C=64", {1, 64, 5, 3}, kSpatial));
    cases.push_back(make(op, "space, one position", {2, 5, 1, 1}, kSpatial));
    cases.push_back(make(op, "space, C=1", {3, 1, 13, 11}, kSpatial));
    cases.push_back(make(op, "space, several chunks", {1, 19, 40, 61}, kSpatial));
  }
  return cases;
}

}  // namespace limbeck::test
