// OpCases of ops/elementwise.h: every op in the same layouts, plus all the ways two operands can broadcast.
#include "ops/elementwise.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using Unary = Tensor (*)(const Tensor&);
using Binary = Tensor (*)(const Tensor&, const Tensor&);

/// One-operand op on three shapes: a map of odd size, one pixel, and a vector longer than a vector register.
void add_unary(std::vector<OpCase>& cases, const char* op, const std::function<Tensor(const Tensor&)>& f, double low,
               double high, bool kinks = false) {
  const std::pair<const char*, Shape> shapes[] = {
      {"map", {2, 5, 3, 7}}, {"one pixel, 11 channels", {1, 11, 1, 1}}, {"vector", {37}}, {"scalar", {}}};
  for (const auto& [label, shape] : shapes) {
    cases.push_back({.op = op,
                     .label = label,
                     .inputs = [shape = shape, low,
                                high](Generator& g) { return std::vector{random_uniform(g, shape, low, high)}; },
                     .forward = [f](std::span<const Tensor> in) { return f(in[0]); },
                     .kinks = kinks});
  }
}

void add_binary(std::vector<OpCase>& cases, const char* op, Binary f, double low, double high, bool kinks = false) {
  struct Pair {
    const char* label;
    Shape a, b;
  };
  const Pair pairs[] = {
      {"same shape", {2, 3, 5, 4}, {2, 3, 5, 4}},
      {"per channel on the right", {2, 19, 3, 5}, {1, 19, 1, 1}},
      {"per channel on the left", {1, 19, 1, 1}, {2, 19, 3, 5}},
      {"per sample and channel", {2, 11, 3, 2}, {2, 11, 1, 1}},
      {"one map for all channels", {2, 21, 3, 2}, {2, 1, 3, 2}},
      {"both repeated", {1, 5, 4, 1}, {3, 1, 1, 2}},
      {"scalar", {2, 3, 4, 4}, {}},
      {"row of a matrix", {4, 7}, {7}},
      {"wide row against its first element", {3, 600}, {3, 1}},
      {"lower rank against a map", {2, 3, 4, 5}, {4, 1}},
  };
  for (const Pair& p : pairs) {
    cases.push_back({.op = op,
                     .label = p.label,
                     .inputs =
                         [p, low, high](Generator& g) {
                           return std::vector{random_uniform(g, p.a, low, high), random_uniform(g, p.b, low, high)};
                         },
                     .forward = [f](std::span<const Tensor> in) { return f(in[0], in[1]); },
                     .kinks = kinks});
  }
}

}  // namespace

std::vector<OpCase> elementwise_cases() {
  std::vector<OpCase> cases;
  const auto plain = [](Unary f) { return std::function<Tensor(const Tensor&)>(f); };
  add_unary(cases, "neg", plain(ops::neg), -3, 3);
  add_unary(cases, "relu", plain(ops::relu), -3, 3, true);
  add_unary(cases, "relu6", plain(ops::relu6), -4, 10, true);
  add_unary(cases, "sigmoid", plain(ops::sigmoid), -5, 5);
  add_unary(cases, "tanh", plain(ops::tanh), -2, 2);
  add_unary(cases, "exp", plain(ops::exp), -3, 3);
  add_unary(cases, "log", plain(ops::log), 0.2, 5);
  add_unary(cases, "sqrt", plain(ops::sqrt), 0.2, 5);
  add_unary(cases, "square", plain(ops::square), -3, 3);
  add_unary(cases, "abs", plain(ops::abs), -3, 3, true);
  add_unary(
      cases, "add_scalar", [](const Tensor& x) { return ops::add_scalar(x, 0.75); }, -3, 3);
  add_unary(
      cases, "mul_scalar", [](const Tensor& x) { return ops::mul_scalar(x, -1.5); }, -3, 3);
  add_unary(
      cases, "leaky_relu", [](const Tensor& x) { return ops::leaky_relu(x, 0.1); }, -3, 3, true);
  add_unary(
      cases, "pow_scalar", [](const Tensor& x) { return ops::pow_scalar(x, 2.5); }, 0.2, 3);
  add_unary(
      cases, "clamp", [](const Tensor& x) { return ops::clamp(x, -1, 0.5); }, -2, 2, true);

  add_binary(cases, "add", ops::add, -3, 3);
  add_binary(cases, "sub", ops::sub, -3, 3);
  add_binary(cases, "mul", ops::mul, -3, 3);
  add_binary(cases, "div", ops::div, 0.5, 2);
  add_binary(cases, "maximum", ops::maximum, -3, 3, true);
  add_binary(cases, "minimum", ops::minimum, -3, 3, true);
  return cases;
}

}  // namespace limbeck::test
