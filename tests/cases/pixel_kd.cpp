// Inputs for the pixel-wise distillation loss.
#include "distill/pixel_kd.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::PixelKdReduction;

OpCase make(const char* label, const Shape& shape, double tau = 1.0,
            PixelKdReduction reduction = PixelKdReduction::kPerPixel, double ignored = -1.0) {
  OpCase c;
  c.op = "pixel_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    std::vector<Tensor> in{random_uniform(g, shape, -3, 3), random_uniform(g, shape, -3, 3)};
    if (ignored >= 0) {
      const Shape map = shape.size() == 4 ? Shape{shape[0], shape[2], shape[3]} : Shape{shape[0]};
      in.push_back(random_labels(g, map, shape[1], ignored));
    }
    return in;
  };
  c.forward = [=](std::span<const Tensor> in) {
    return distill::pixel_kd(in[0], in[1], {.tau = tau, .reduction = reduction}, in.size() > 2 ? in[2] : Tensor());
  };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> pixel_kd_cases() {
  return {
      make("mean over everything", {2, 3, 4, 5}, 1, PixelKdReduction::kMeanAll),
      make("per pixel, tau 4", {2, 19, 7, 9}, 4),
      make("batch mean, tau 2", {3, 11, 4, 5}, 2, PixelKdReduction::kBatchMean),
      make("cross-entropy form, tau 1", {2, 21, 5, 5}, 1, PixelKdReduction::kSkdCrossEntropy),
      make("cross-entropy form, tau 3", {1, 5, 5, 5}, 3, PixelKdReduction::kSkdCrossEntropy),
      make("tau below 1", {1, 19, 6, 7}, 0.5),
      make("N=1, one pixel", {1, 19, 1, 1}, 2),
      make("C=1", {2, 1, 3, 5}, 2),
      make("[N,C]", {9, 10}, 4, PixelKdReduction::kBatchMean),
      make("with labels", {2, 19, 7, 9}, 2, PixelKdReduction::kPerPixel, 0.3),
      make("with labels, mean over everything", {2, 19, 7, 9}, 2, PixelKdReduction::kMeanAll, 0.3),
      make("everything ignored", {2, 11, 4, 5}, 2, PixelKdReduction::kPerPixel, 1.1),
      make("several blocks", {2, 19, 31, 33}, 4),
  };
}

}  // namespace limbeck::test
