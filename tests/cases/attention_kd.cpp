// Inputs for the losses over attention maps.
#include "distill/attention_kd.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::AttentionForm;

OpCase make(const char* label, const Shape& student, const Shape& teacher,
            AttentionForm form = AttentionForm::kMeanSquare) {
  OpCase c;
  c.op = "attention_kd";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::attention_kd(in[0], in[1], {.form = form}); };
  c.fixed = {1};
  return c;
}

/// Students first, then as many teachers.
OpCase make_psd(const char* label, const std::vector<Shape>& maps) {
  OpCase c;
  c.op = "psd_kd";
  c.label = label;
  const std::size_t layers = maps.size() / 2;
  c.inputs = [=](Generator& g) {
    std::vector<Tensor> in;
    for (const Shape& shape : maps) in.push_back(random_uniform(g, shape, -3, 3));
    return in;
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::psd_kd(in.first(layers), in.subspan(layers)); };
  for (std::size_t i = layers; i < 2 * layers; ++i) c.fixed.push_back(i);
  c.f32_tolerance = 1e-4;  // differences of attention maps
  c.bf16_tolerance = 5e-2;
  return c;
}

}  // namespace

std::vector<OpCase> attention_kd_cases() {
  return {
      make("C=3", {2, 3, 4, 5}, {2, 3, 4, 5}),
      make("more channels in the teacher", {2, 11, 7, 9}, {2, 64, 7, 9}),
      make("C=1, N=1", {1, 1, 5, 13}, {1, 1, 5, 13}),
      make("norm", {3, 19, 5, 6}, {3, 21, 5, 6}, AttentionForm::kNorm),
      make("columns", {2, 19, 5, 7}, {2, 21, 5, 7}, AttentionForm::kColumns),
      make("one position", {2, 19, 1, 1}, {2, 8, 1, 1}),
      make("many positions", {2, 21, 33, 31}, {2, 19, 33, 31}),
      make_psd("two layers", {{2, 3, 4, 5}, {2, 7, 4, 5}, {2, 3, 4, 5}, {2, 9, 4, 5}}),
      make_psd("three layers",
               {{1, 19, 7, 6}, {1, 32, 7, 6}, {1, 11, 7, 6}, {1, 21, 7, 6}, {1, 3, 7, 6}, {1, 11, 7, 6}}),
  };
}

}  // namespace limbeck::test
