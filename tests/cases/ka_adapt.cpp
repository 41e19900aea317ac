// Inputs for the adaptation loss.
#include "distill/ka_adapt.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::KaReduction;
using distill::KaScope;

OpCase make(const char* label, const Shape& shape, const distill::KaAdaptOptions& options) {
  OpCase c;
  c.op = "ka_adapt";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::ka_adapt(in[0], in[1], options); };
  c.fixed = {1};
  c.kinks = true;  // p = 1 where both agree, q = 1 at 0
  return c;
}

/// Too large a sum for finite differences; the small cases check the derivative.
OpCase several_blocks() {
  OpCase c = make("several blocks", {2, 32, 33, 31}, {});
  c.check_derivative = false;
  return c;
}

}  // namespace

std::vector<OpCase> ka_adapt_cases() {
  return {
      make("image, p 1, q 2", {2, 3, 4, 5}, {}),
      make("image, p 2, q 2", {2, 19, 5, 7}, {.p = 2}),
      make("image, p 3, q 1, sum", {1, 11, 5, 6}, {.p = 3, .q = 1, .reduction = KaReduction::kSum}),
      make("image, p 1, q 2.5, mean over images", {2, 5, 4, 3}, {.q = 2.5, .reduction = KaReduction::kVectorMean}),
      make("pixel, p 1, q 2", {2, 19, 4, 5}, {.scope = KaScope::kPixel}),
      make("pixel, p 2, q 2", {2, 21, 4, 5}, {.p = 2, .scope = KaScope::kPixel}),
      make("pixel, p 2, q 1", {2, 8, 4, 5}, {.p = 2, .q = 1, .scope = KaScope::kPixel}),
      make("pixel, p 1.5, q 3, sum", {1, 6, 3, 5},
           {.p = 1.5, .q = 3, .scope = KaScope::kPixel, .reduction = KaReduction::kSum}),
      make("one position, p 2", {2, 11, 1, 1}, {.p = 2}),
      make("one channel", {1, 1, 5, 7}, {}),
      several_blocks(),
  };
}

}  // namespace limbeck::test
