// Inputs for the squared distance between feature maps.
#include "distill/feature_mse.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::FeatureReduction;

OpCase make(const char* label, const Shape& shape, FeatureReduction reduction = FeatureReduction::kMean) {
  OpCase c;
  c.op = "feature_mse";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::feature_mse(in[0], in[1], {.reduction = reduction}); };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> feature_mse_cases() {
  return {
      make("C=3, mean", {2, 3, 4, 5}),
      make("C=19, sum / N", {3, 19, 5, 7}, FeatureReduction::kSumPerImage),
      make("C=64, several blocks", {2, 64, 23, 25}),
      make("one number", {1, 1, 1, 1}, FeatureReduction::kSumPerImage),
      make("vectors", {4, 37}),
      make("per position", {2, 5, 6, 7}, FeatureReduction::kPerPosition),
  };
}

}  // namespace limbeck::test
