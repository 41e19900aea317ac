// Inputs for the intra-class variation loss.
#include "distill/ifvd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& student, const Shape& teacher, std::int64_t classes, double ignored = 0.2) {
  OpCase c;
  c.op = "ifvd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3),
                               random_labels(g, {student[0], student[2], student[3]}, classes, ignored)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::ifvd(in[0], in[1], in[2]); };
  c.fixed = {1};
  return c;
}

/// With one channel every cosine is 1 or -1 and the gradient 0; what is compared is rounding, at the scale of 1e-6.
OpCase one_channel() {
  OpCase c = make("C=1", {2, 1, 5, 7}, {2, 1, 5, 7}, 3);
  c.f32_tolerance = 5e-2;
  c.bf16_tolerance = 0.5;
  return c;
}

}  // namespace

std::vector<OpCase> ifvd_cases() {
  return {
      make("C=3, 3 classes", {2, 3, 4, 5}, {2, 3, 4, 5}, 3),
      make("19 classes, more channels in the teacher", {2, 11, 7, 9}, {2, 32, 7, 9}, 19),
      make("one class, nothing ignored", {1, 21, 5, 5}, {1, 21, 5, 5}, 1, 0.0),
      one_channel(),
      make("one position", {2, 19, 1, 1}, {2, 19, 1, 1}, 2, 0.0),
      make("everything ignored", {2, 11, 4, 5}, {2, 11, 4, 5}, 3, 1.1),
      make("several blocks", {1, 19, 33, 31}, {1, 21, 33, 31}, 11),
  };
}

}  // namespace limbeck::test
