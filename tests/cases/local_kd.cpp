// Inputs for the local similarity loss.
#include "distill/local_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& student, const Shape& teacher) {
  OpCase c;
  c.op = "local_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::local_kd(in[0], in[1]); };
  c.fixed = {1};
  return c;
}

}  // namespace

std::vector<OpCase> local_kd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 3, 4, 5}),
      make("C=19, more channels in the teacher", {1, 19, 7, 5}, {1, 32, 7, 5}),
      make("one row", {2, 11, 1, 6}, {2, 11, 1, 6}),
      make("one column", {2, 11, 6, 1}, {2, 11, 6, 1}),
      make("one position", {2, 19, 1, 1}, {2, 19, 1, 1}),
      make("several blocks", {2, 21, 33, 31}, {2, 21, 33, 31}),
  };
}

}  // namespace limbeck::test
