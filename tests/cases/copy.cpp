// OpCases of the ops that move elements: cast, clone, reshape, permute, concat, slice, pad2d.
#include "ops/copy.h"

#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/pad.h"
#include "ops/slice.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using Forward = std::function<Tensor(std::span<const Tensor>)>;

OpCase moving(const char* op, const char* label, const std::vector<Shape>& shapes, const Forward& forward) {
  return {.op = op,
          .label = label,
          .inputs =
              [shapes](Generator& g) {
                std::vector<Tensor> out;
                for (const Shape& s : shapes) out.push_back(random_normal(g, s));
                return out;
              },
          .forward = forward};
}

OpCase reshaped(const char* label, const Shape& from, const Shape& to) {
  return moving("reshape", label, {from}, [to](std::span<const Tensor> in) { return ops::reshape(in[0], to); });
}

}  // namespace

std::vector<OpCase> copy_cases() {
  std::vector<OpCase> cases;
  // f32 -> bf16 -> f32 would not be exact in f64, so the cast is checked where it changes nothing but the type.
  cases.push_back(moving("cast", "to its own type", {{2, 3, 4, 5}},
                         [](std::span<const Tensor> in) { return ops::cast(in[0], in[0].dtype()); }));
  cases.push_back(moving("cast", "to f64 and back", {{2, 3, 4, 5}}, [](std::span<const Tensor> in) {
    return ops::cast(ops::cast(in[0], DType::kF64), in[0].dtype());
  }));
  cases.push_back(moving("clone", "map", {{2, 5, 3, 4}}, [](std::span<const Tensor> in) { return ops::clone(in[0]); }));
  cases.push_back(moving("clone", "scalar", {{}}, [](std::span<const Tensor> in) { return ops::clone(in[0]); }));

  cases.push_back(reshaped("map to matrix (copy)", {2, 5, 3, 4}, {2, 60}));
  cases.push_back(reshaped("map to map", {2, 6, 3, 4}, {2, 3, 6, 4}));
  cases.push_back(reshaped("matrix to map", {6, 20}, {6, 5, 2, 2}));
  cases.push_back(reshaped("one pixel, computed size", {3, 19, 1, 1}, {3, -1}));
  cases.push_back(reshaped("splitting rows", {6, 4}, {2, 3, 2, 2, 1}));
  cases.push_back(reshaped("large transposition", {2, 33, 9, 8}, {2, 33, -1}));
  cases.push_back(
      moving("reshape", "flatten", {{2, 3, 4}}, [](std::span<const Tensor> in) { return ops::flatten(in[0]); }));

  cases.push_back(moving("permute", "map to pixels", {{2, 5, 3, 4}}, [](std::span<const Tensor> in) {
    return ops::reshape(ops::permute(in[0], {0, 2, 3, 1}), {2, 12, 5});
  }));
  cases.push_back(moving("permute", "a kernel reads the view", {{2, 5, 3, 4}}, [](std::span<const Tensor> in) {
    return ops::square(ops::permute(in[0], {3, 0, 1, 2}));
  }));
  cases.push_back(moving("permute", "transposition", {{37, 21}}, [](std::span<const Tensor> in) {
    return ops::clone(ops::permute(in[0], {1, 0}));
  }));

  const auto joined = [](std::int64_t dim) {
    return [dim](std::span<const Tensor> in) { return ops::concat(in, dim); };
  };
  cases.push_back(moving("concat", "channels", {{2, 3, 4, 5}, {2, 11, 4, 5}, {2, 1, 4, 5}}, joined(1)));
  cases.push_back(moving("concat", "samples", {{2, 3, 2, 3}, {1, 3, 2, 3}}, joined(0)));
  cases.push_back(moving("concat", "rows", {{2, 3, 2, 3}, {2, 3, 4, 3}}, joined(-2)));
  cases.push_back(moving("concat", "columns of matrices", {{3, 2}, {3, 5}}, joined(-1)));
  cases.push_back(moving("concat", "a single tensor", {{1, 4, 1, 1}}, joined(1)));
  cases.push_back(moving("concat", "the same tensor twice", {{1, 4, 2, 2}}, [](std::span<const Tensor> in) {
    return ops::concat({in[0], in[0]}, 1);
  }));

  const auto sliced = [](std::int64_t dim, std::int64_t start, std::int64_t end) {
    return [=](std::span<const Tensor> in) { return ops::slice(in[0], dim, start, end); };
  };
  cases.push_back(moving("slice", "channels", {{2, 19, 3, 4}}, sliced(1, 3, 14)));
  cases.push_back(moving("slice", "samples", {{3, 2, 3, 4}}, sliced(0, 1, 2)));
  cases.push_back(moving("slice", "from the end", {{2, 3, 5, 4}}, sliced(-1, -3, -1)));
  cases.push_back(moving("slice", "all", {{2, 7}}, sliced(1, 0, 7)));
  cases.push_back(moving("slice", "a kernel reads the view", {{2, 6, 3, 4}}, [](std::span<const Tensor> in) {
    return ops::mul(ops::slice(in[0], 1, 0, 3), ops::slice(in[0], 1, 3, 6));
  }));

  const auto padded = [](ops::Pad2d pad, double value) {
    return [=](std::span<const Tensor> in) { return ops::pad2d(in[0], pad, value); };
  };
  cases.push_back(moving("pad2d", "four different borders", {{2, 3, 4, 5}}, padded({1, 2, 3, 4}, 0.0)));
  cases.push_back(moving("pad2d", "constant, one side", {{1, 19, 1, 1}}, padded({0, 2, 0, 0}, -1.5)));
  cases.push_back(moving("pad2d", "nothing", {{2, 3, 2, 2}}, padded({}, 7.0)));
  return cases;
}

}  // namespace limbeck::test
