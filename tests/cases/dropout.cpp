// OpCases of ops/dropout.h. The generator is created inside forward, so every call draws the same mask.
#include "ops/dropout.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {

std::vector<OpCase> dropout_cases() {
  std::vector<OpCase> cases;
  const std::pair<const char*, Shape> shapes[] = {{"map", {2, 19, 3, 5}},
                                                  {"one pixel", {1, 11, 1, 1}},
                                                  {"matrix", {5, 37}},
                                                  {"more channels than a chunk", {1, 600, 2, 1}}};
  for (const auto& [label, shape] : shapes) {
    for (const bool whole : {false, true}) {
      cases.push_back({.op = whole ? "dropout2d" : "dropout",
                       .label = label,
                       .inputs = [shape = shape](Generator& g) { return std::vector{random_normal(g, shape)}; },
                       .forward =
                           [whole](std::span<const Tensor> in) {
                             Generator g(5, 9);
                             g.set_offset(3);  // not a multiple of Philox's block of four
                             return whole ? ops::dropout2d(in[0], 0.4, true, g) : ops::dropout(in[0], 0.4, true, g);
                           }});
    }
  }
  const auto map = [](Generator& g) { return std::vector{random_normal(g, {2, 3, 4, 5})}; };
  cases.push_back({.op = "dropout",
                   .label = "vector",
                   .inputs = [](Generator& g) { return std::vector{random_normal(g, {700})}; },
                   .forward =
                       [](std::span<const Tensor> in) {
                         Generator g(5);
                         return ops::dropout(in[0], 0.1, true, g);
                       }});
  cases.push_back({.op = "dropout", .label = "p = 1", .inputs = map, .forward = [](std::span<const Tensor> in) {
                     Generator g(5);
                     return ops::dropout(in[0], 1.0, true, g);
                   }});
  return cases;
}

}  // namespace limbeck::test
