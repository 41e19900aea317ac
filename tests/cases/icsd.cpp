// Inputs for the inter-class similarity loss.
#include "distill/inter_class_kd.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::IcsdMode;

OpCase make(const char* label, const Shape& student, const Shape& teacher, IcsdMode mode = IcsdMode::kPaperNorm,
            double tau = 1) {
  OpCase c;
  c.op = "icsd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::icsd(in[0], in[1], {.tau = tau, .mode = mode}); };
  c.fixed = {1};
  if (mode == IcsdMode::kOfficialCode) c.f32_tolerance = 2e-5;
  return c;
}

}  // namespace

std::vector<OpCase> icsd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 3, 4, 5}),
      make("C=19, rows only", {3, 19, 5, 7}, {3, 19, 5, 7}, IcsdMode::kRowNorm),
      make("C=11, raw, tau 2, N=1", {1, 11, 9, 7}, {1, 11, 9, 7}, IcsdMode::kPaperRaw, 2),
      make("C=5, one matrix per image", {2, 5, 6, 7}, {2, 5, 6, 7}, IcsdMode::kImageRaw),
      make("C=4, one matrix per image, rows", {2, 4, 6, 7}, {2, 4, 6, 7}, IcsdMode::kImageNorm),
      make("C=21, several runs", {1, 21, 19, 33}, {1, 21, 19, 33}),
      make("C=2, several blocks", {1, 2, 60, 61}, {1, 2, 60, 61}),
      make("C=11, maps of other sizes", {2, 11, 5, 6}, {2, 11, 9, 7}),
      make("C=1", {2, 1, 5, 5}, {2, 1, 5, 5}),
      make("one position", {2, 19, 1, 1}, {2, 19, 1, 1}),
      make("C=3, released code", {2, 3, 4, 5}, {2, 3, 4, 5}, IcsdMode::kOfficialCode),
      make("C=11, released code, tau 2", {3, 11, 9, 17}, {3, 11, 9, 17}, IcsdMode::kOfficialCode, 2),
  };
}

}  // namespace limbeck::test
