// OpCases of ops/reduce.h: every plan of the fast kernel (all, rows, columns, groups of columns, none of them).
#include "ops/reduce.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {

std::vector<OpCase> reduce_cases() {
  struct Item {
    const char* label;
    Shape shape, dims;
    bool keepdim;
  };
  const Item items[] = {
      {"all of a map", {2, 5, 3, 7}, {0, 1, 2, 3}, false},
      {"per channel", {2, 19, 3, 5}, {0, 2, 3}, false},
      {"per channel, 700 of them, keepdim", {2, 700, 2, 3}, {0, 2, 3}, true},
      {"per sample and channel", {3, 11, 4, 5}, {2, 3}, true},
      {"over channels", {2, 21, 3, 4}, {1}, false},
      {"over channels, keepdim, negative", {2, 100, 3, 4}, {-3}, true},
      {"over samples", {4, 3, 2, 5}, {0}, false},
      {"over rows, result per n, c, w", {2, 3, 5, 4}, {2}, false},
      {"over channels and rows", {2, 3, 5, 4}, {1, 2}, false},
      {"nothing", {2, 3, 4, 5}, {}, true},
      {"one pixel", {1, 11, 1, 1}, {2, 3}, false},
      {"vector", {301}, {0}, false},
      {"matrix columns", {40, 6}, {0}, true},
      {"6-D to 4-D", {2, 3, 2, 2, 3, 2}, {1, 4}, false},
  };
  std::vector<OpCase> cases;
  for (const Item& item : items) {
    const auto inputs = [item](Generator& g) { return std::vector{random_normal(g, item.shape)}; };
    cases.push_back({.op = "sum", .label = item.label, .inputs = inputs, .forward = [item](std::span<const Tensor> in) {
                       return ops::sum(in[0], item.dims, item.keepdim);
                     }});
    cases.push_back(
        {.op = "mean", .label = item.label, .inputs = inputs, .forward = [item](std::span<const Tensor> in) {
           return ops::mean(in[0], item.dims, item.keepdim);
         }});
    cases.push_back(
        {.op = "amax",
         .label = item.label,
         .inputs = inputs,
         .forward = [item](std::span<const Tensor> in) { return ops::amax(in[0], item.dims, item.keepdim); },
         .kinks = true});
    if (item.dims.size() != 1) continue;
    cases.push_back({.op = "argmax",
                     .label = item.label,
                     .inputs = inputs,
                     .forward = [item](std::span<const Tensor> in) { return ops::argmax(in[0], item.dims[0]); },
                     .differentiable = false});
  }
  const auto map = [](Generator& g) { return std::vector{random_uniform(g, {2, 3, 9, 11}, -1, 2)}; };
  cases.push_back({.op = "sum", .label = "to a scalar", .inputs = map, .forward = [](std::span<const Tensor> in) {
                     return ops::sum(in[0]);
                   }});
  cases.push_back({.op = "mean", .label = "to a scalar", .inputs = map, .forward = [](std::span<const Tensor> in) {
                     return ops::mean(in[0]);
                   }});
  return cases;
}

}  // namespace limbeck::test
