// Inputs for the affinity loss: more positions than channels and fewer, several runs of positions, every form.
#include "distill/ka_affinity.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using distill::KaAffinityReduce;

OpCase make(const char* label, const Shape& student, const Shape& teacher, KaAffinityReduce reduce) {
  OpCase c;
  c.op = "ka_affinity";
  c.label = label;
  c.inputs = [=](Generator& g) {
    return std::vector<Tensor>{random_uniform(g, student, -3, 3), random_uniform(g, teacher, -3, 3)};
  };
  c.forward = [=](std::span<const Tensor> in) { return distill::ka_affinity(in[0], in[1], {.reduce = reduce}); };
  c.fixed = {1};
  return c;
}

OpCase without_differences(OpCase c) {
  c.check_derivative = false;  // too many numbers; the small cases check the derivative
  return c;
}

}  // namespace

std::vector<OpCase> ka_affinity_cases() {
  std::vector<OpCase> cases;
  for (const KaAffinityReduce reduce : {KaAffinityReduce::kMeanSquare, KaAffinityReduce::kRowNorm}) {
    const auto add = [&](const char* label, const Shape& student, const Shape& teacher) {
      cases.push_back(make(label, student, teacher, reduce));
    };
    add("C=3", {2, 3, 4, 5}, {2, 3, 4, 5});
    add("more channels in the teacher", {1, 11, 5, 6}, {1, 19, 5, 6});
    add("more channels in the student", {2, 21, 5, 5}, {2, 4, 5, 5});
    add("fewer positions than channels", {2, 19, 3, 4}, {2, 19, 3, 4});
    add("fewer positions, other channels", {1, 5, 3, 3}, {1, 37, 3, 3});
    // Its affinity is 1 whatever the map; the norm of what rounding leaves of the difference is not a number to
    // compare.
    if (reduce == KaAffinityReduce::kMeanSquare) add("one position", {2, 19, 1, 1}, {2, 8, 1, 1});
    cases.push_back(without_differences(make("several runs and panels", {1, 40, 15, 19}, {1, 70, 15, 19}, reduce)));
    cases.push_back(without_differences(make("few positions, several panels", {1, 270, 6, 7}, {1, 70, 6, 7}, reduce)));
  }
  cases.push_back(make("torchdistill, C=3", {2, 3, 4, 5}, {2, 3, 4, 5}, KaAffinityReduce::kTdl));
  cases.push_back(make("torchdistill, C=19", {1, 19, 3, 5}, {1, 19, 3, 5}, KaAffinityReduce::kTdl));
  cases.push_back(
      without_differences(make("torchdistill, several runs", {1, 8, 25, 23}, {1, 8, 25, 23}, KaAffinityReduce::kTdl)));
  return cases;
}

}  // namespace limbeck::test
