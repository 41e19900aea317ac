// Inputs for the objective of the feature autoencoder.
#include "distill/ka_autoencoder_loss.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

/// A weight of the code that shows next to the mean square.
OpCase make(const char* label, const Shape& map, const Shape& code, const distill::KaAutoencoderOptions& options) {
  OpCase c;
  c.op = "ka_autoencoder_loss";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, map, -3, 3), random_uniform(g, code, -2, 2),
                               random_uniform(g, map, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::ka_autoencoder_loss(in[0], in[1], in[2], options); };
  c.fixed = {2};
  c.kinks = true;  // a code of 0
  return c;
}

/// Too large a sum for finite differences; the small cases check the derivative.
OpCase several_blocks() {
  OpCase c = make("several blocks", {2, 32, 33, 31}, {2, 16, 17, 16}, {.alpha = 1e-4});
  c.check_derivative = false;
  return c;
}

}  // namespace

std::vector<OpCase> ka_autoencoder_loss_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 2, 4, 5}, {.alpha = 0.03}),
      make("stride 2, summed over the batch", {2, 19, 7, 9}, {2, 9, 4, 5}, {.alpha = 0.01, .sum_over_batch = true}),
      make("N=1", {1, 21, 5, 5}, {1, 10, 5, 5}, {.alpha = 0.01}),
      make("C=1, one position", {2, 1, 1, 1}, {2, 1, 1, 1}, {.alpha = 0.5}),
      make("no weight on the code", {2, 11, 5, 7}, {2, 5, 5, 7}, {.alpha = 0}),
      several_blocks(),
  };
}

}  // namespace limbeck::test
