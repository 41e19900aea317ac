// OpCases of ops/matmul.h.
#include "ops/matmul.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {

std::vector<OpCase> matmul_cases() {
  struct Item {
    const char* label;
    Shape a, b;
    bool trans_a, trans_b;
  };
  const Item items[] = {
      {"plain", {5, 7}, {7, 3}, false, false},
      {"transposed a", {7, 5}, {7, 3}, true, false},
      {"transposed b", {5, 7}, {3, 7}, false, true},
      {"transposed both", {7, 5}, {3, 7}, true, true},
      {"one row", {1, 19}, {19, 4}, false, false},
      {"one column", {6, 11}, {11, 1}, false, false},
      {"outer product", {4, 1}, {1, 5}, false, false},
      {"batch", {3, 4, 5}, {3, 5, 2}, false, false},
      {"batch of one, transposed b", {1, 4, 6}, {1, 3, 6}, false, true},
      {"batch, transposed a", {2, 6, 4}, {2, 6, 5}, true, false},
      {"longer sums", {9, 130}, {130, 17}, false, false},
  };
  std::vector<OpCase> cases;
  for (const Item& item : items) {
    cases.push_back(
        {.op = "matmul",
         .label = item.label,
         .inputs =
             [item](Generator& g) {
               return std::vector{random_normal(g, item.a), random_normal(g, item.b)};
             },
         .forward =
             [item](std::span<const Tensor> in) { return ops::matmul(in[0], in[1], item.trans_a, item.trans_b); }});
  }
  for (const bool master : {false, true}) {
    cases.push_back(
        {.op = "linear",
         .label = master ? "f32 master parameters" : "one type",
         .inputs =
             [](Generator& g) {
               return std::vector{random_normal(g, {5, 12}), random_normal(g, {7, 12}), random_normal(g, {7})};
             },
         .forward = [](std::span<const Tensor> in) { return ops::linear(in[0], in[1], in[2]); },
         .keep_f32 = master ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{}});
  }
  cases.push_back({.op = "linear",
                   .label = "no bias, one sample",
                   .inputs =
                       [](Generator& g) {
                         return std::vector{random_normal(g, {1, 33}), random_normal(g, {2, 33})};
                       },
                   .forward = [](std::span<const Tensor> in) { return ops::linear(in[0], in[1]); }});
  return cases;
}

}  // namespace limbeck::test
