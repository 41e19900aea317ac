// Inputs for the similarity-preserving loss.
#include "distill/batch_similarity_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make(const char* label, const Shape& student, const Shape& teacher) {
  OpCase c;
  c.op = "batch_similarity_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::batch_similarity_kd(in[0], in[1]); };
  c.fixed = {1};
  return c;
}

/// The gradient has 4 MiB, from where on it is written past the cache.
OpCase large(const char* label, const Shape& student, const Shape& teacher) {
  OpCase c = make(label, student, teacher);
  c.check_derivative = false;  // too many numbers
  return c;
}

}  // namespace

std::vector<OpCase> batch_similarity_kd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 3, 4, 5}),
      make("maps of other sizes", {4, 11, 3, 5}, {4, 7, 6, 10}),
      make("vectors", {5, 19}, {5, 32}),
      make("several runs", {3, 19, 17, 16}, {3, 21, 17, 16}),
      make("a group and a half of samples", {6, 5, 3, 7}, {6, 8, 3, 7}),
      large("past the cache", {5, 67, 61, 53}, {5, 3, 61, 53}),
      make("C=1, one position", {3, 1, 1, 1}, {3, 2, 1, 1}),
  };
}

}  // namespace limbeck::test
