// Elementwise ops: known answers, NaN, broadcasting, autocast, in-place writes, error messages. Gradients and parity of
// the kernels are covered by tests/cases/elementwise.cpp.
#include "ops/elementwise.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <optional>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "ops/activation.h"
#include "ops/reduce.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("elementwise");

namespace {

Tensor row(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

}  // namespace

TEST_CASE("values at and around corners") {
  using V = std::vector<float>;
  const Tensor x = row({-2, -0.5F, 0, 0.5F, 6, 7});
  CHECK(ops::relu(x).to_vector<float>() == V{0, 0, 0, 0.5F, 6, 7});
  CHECK(ops::relu6(x).to_vector<float>() == V{0, 0, 0, 0.5F, 6, 6});
  CHECK(ops::leaky_relu(x, 0.5).to_vector<float>() == V{-1, -0.25F, 0, 0.5F, 6, 7});
  CHECK(ops::abs(x).to_vector<float>() == V{2, 0.5F, 0, 0.5F, 6, 7});
  CHECK(ops::clamp(x, -1, 6).to_vector<float>() == V{-1, -0.5F, 0, 0.5F, 6, 6});
  CHECK(ops::square(x).to_vector<float>() == V{4, 0.25F, 0, 0.25F, 36, 49});
  CHECK(ops::neg(x).to_vector<float>()[5] == -7);
  CHECK(ops::add_scalar(x, 2).to_vector<float>()[0] == 0);
  CHECK(ops::mul_scalar(x, -2).to_vector<float>()[0] == 4);
  CHECK(ops::pow_scalar(row({2, 9}), 0.5).to_vector<float>()[1] == doctest::Approx(3));
  CHECK(ops::sqrt(row({0, 16})).to_vector<float>() == V{0, 4});
  CHECK(ops::maximum(row({1, 5}), row({3, 2})).to_vector<float>() == V{3, 5});
  CHECK(ops::minimum(row({1, 5}), row({3, 2})).to_vector<float>() == V{1, 2});
  CHECK(ops::div(row({1, -6}), row({4, 3})).to_vector<float>() == V{0.25F, -2});
}

TEST_CASE("saturation and limits of the exponential family") {
  const Tensor x = row({-200, -100, 0, 100, 200});
  const auto s = ops::sigmoid(x).to_vector<float>();
  CHECK(s[0] == 0.0F);
  CHECK(s[2] == 0.5F);
  CHECK(s[4] == 1.0F);
  const auto t = ops::tanh(x).to_vector<float>();
  CHECK(t[0] == -1.0F);
  CHECK(t[2] == 0.0F);
  CHECK(t[4] == 1.0F);
  CHECK(std::isinf(ops::exp(x).to_vector<float>()[4]));
  const auto l = ops::log(row({0, 1, -1})).to_vector<float>();
  CHECK(l[0] == -std::numeric_limits<float>::infinity());
  CHECK(l[1] == 0.0F);
  CHECK(std::isnan(l[2]));
}

TEST_CASE("tanh keeps its relative precision near zero and has no jump between its two formulas") {
  std::vector<float> v;
  for (int i = 1; i <= 4000; ++i) v.push_back(static_cast<float>(i) * 0.00025F);  // 0.00025 .. 1
  v.push_back(1e-20F);
  const auto y = ops::tanh(row(v)).to_vector<float>();
  for (std::size_t i = 0; i < v.size(); ++i) {
    const double exact = std::tanh(static_cast<double>(v[i]));
    REQUIRE(std::abs(static_cast<double>(y[i]) - exact) <= 3e-7 * exact);
  }
}

TEST_CASE("NaN goes through every op") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto is_nan = [](const Tensor& t) { return std::isnan(t.to_vector<float>()[0]); };
  for (const bool reference : {false, true}) {
    std::optional<ReferenceGuard> guard;
    if (reference) guard.emplace();
    const Tensor x = row({nan, 1});
    const Tensor one = row({1, nan});
    CHECK(is_nan(ops::relu(x)));
    CHECK(is_nan(ops::relu6(x)));
    CHECK(is_nan(ops::leaky_relu(x, 0.1)));
    CHECK(is_nan(ops::clamp(x, 0, 1)));
    CHECK(is_nan(ops::sigmoid(x)));
    CHECK(is_nan(ops::tanh(x)));
    CHECK(is_nan(ops::exp(x)));
    CHECK(is_nan(ops::log(x)));
    CHECK(is_nan(ops::abs(x)));
    CHECK(is_nan(ops::maximum(x, one)));
    CHECK(is_nan(ops::minimum(x, one)));
    CHECK(std::isnan(ops::maximum(x, one).to_vector<float>()[1]));
    CHECK(std::isnan(ops::minimum(x, one).to_vector<float>()[1]));
  }
  CHECK(std::isnan(ops::activate(ops::Activation::kRelu6, nan)));
  CHECK(ops::activate(ops::Activation::kRelu6, 7.0F) == 6.0F);
  CHECK(ops::activate(ops::Activation::kNone, -7.0F) == -7.0F);
  CHECK(ops::activation_slope(ops::Activation::kRelu, 0.0F) == 0.0F);
  CHECK(ops::activation_slope(ops::Activation::kRelu6, 6.0F) == 0.0F);
  CHECK(ops::activation_slope(ops::Activation::kRelu, 6.0F) == 1.0F);
}

TEST_CASE("gradients at corners") {
  const auto slope_at = [](const std::function<Tensor(const Tensor&)>& f, double at) {
    const Tensor x = Tensor::scalar(at);
    x.set_requires_grad(true);
    f(x).backward();
    return x.grad().item();
  };
  CHECK(slope_at([](const Tensor& x) { return ops::relu(x); }, 0) == 0);
  CHECK(slope_at([](const Tensor& x) { return ops::relu6(x); }, 6) == 0);
  CHECK(slope_at([](const Tensor& x) { return ops::abs(x); }, 0) == 0);
  CHECK(slope_at([](const Tensor& x) { return ops::leaky_relu(x, 0.25); }, 0) == 0.25);
  CHECK(slope_at([](const Tensor& x) { return ops::clamp(x, -1, 1); }, 1) == 1);
  CHECK(slope_at([](const Tensor& x) { return ops::clamp(x, -1, 1); }, 1.5) == 0);
  CHECK(slope_at([](const Tensor& x) { return ops::pow_scalar(x, 0); }, 2) == 0);
  // A tie gives each operand one half, so that x against itself has slope 1 in total.
  CHECK(slope_at([](const Tensor& x) { return ops::maximum(x, x); }, 2) == 1);
  CHECK(slope_at([](const Tensor& x) { return ops::maximum(x, Tensor::scalar(2)); }, 2) == 0.5);
  CHECK(slope_at([](const Tensor& x) { return ops::minimum(Tensor::scalar(2), x); }, 2) == 0.5);
}

TEST_CASE("a tensor used as both operands receives both gradients") {
  const Tensor x = row({1, 2, 3});
  x.set_requires_grad(true);
  ops::sum(ops::mul(x, x)).backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{2, 4, 6});
  x.set_grad({});
  ops::sum(ops::sub(x, x)).backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{0, 0, 0});
  x.set_grad({});
  ops::sum(ops::add(x, x)).backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{2, 2, 2});
}

TEST_CASE("large maps on several threads equal the reference") {
  // Above the grain of parallel_for, in every loop form: one row, many rows, broadcast on the inside and the outside.
  Generator g(3);
  const Tensor x = test::random_normal(g, {2, 24, 65, 33}).copy_as(DType::kF32);
  const Tensor channel = test::random_normal(g, {1, 24, 1, 1}).copy_as(DType::kF32);
  const Tensor pixel = test::random_normal(g, {2, 1, 65, 33}).copy_as(DType::kF32);
  const auto compute = [&] {
    return std::vector{ops::relu(x), ops::mul(x, channel), ops::sub(pixel, x), ops::maximum(x, pixel)};
  };
  std::vector<Tensor> expected;
  {
    const ReferenceGuard reference;
    expected = compute();
  }
  const int threads = max_threads();
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    const auto actual = compute();
    for (std::size_t i = 0; i < actual.size(); ++i) {
      CHECK(actual[i].to_vector<float>() == expected[i].to_vector<float>());
    }
  }
  set_threads(threads);
}

TEST_CASE("autocast: two operands meet in the wider type, exp and square run in f32") {
  const Tensor wide = row({1, 2});
  const Tensor low = wide.copy_as(DType::kBF16);
  CHECK(contains(message_of([&] { (void)ops::add(wide, low); }), "[add] got f32 [2] and bf16 [2]"));
  const AutocastGuard on;
  CHECK(ops::add(wide, low).dtype() == DType::kF32);
  CHECK(ops::add(low, low).dtype() == DType::kBF16);
  CHECK(ops::relu(low).dtype() == DType::kBF16);
  CHECK(ops::square(low).dtype() == DType::kF32);
  CHECK(ops::exp(low).dtype() == DType::kF32);
  // The gradient comes back in the type of the input.
  const Tensor leaf = low.copy();
  leaf.set_requires_grad(true);
  ops::sum(ops::mul(leaf, wide)).backward();
  CHECK(leaf.grad().dtype() == DType::kBF16);
  CHECK(leaf.grad().to_vector<float>() == std::vector<float>{1, 2});
}

TEST_CASE("in-place helpers write, count as a write, and refuse tensors on the tape") {
  const Tensor d = Tensor::zeros({2, 3, 2, 2});
  const auto version = d.version();
  ops::add_(d, Tensor::from(std::vector<float>{1, 2, 3}, {1, 3, 1, 1}), 2.0);
  ops::mul_scalar_(d, 0.5);
  CHECK(d.version() == version + 2);
  CHECK(d.to_vector<float>()[4] == 2.0F);
  ops::add_(d, Tensor::full({}, 0.5, DType::kBF16));  // another type is converted
  CHECK(d.to_vector<float>()[4] == 2.5F);
  CHECK(contains(message_of([&] { ops::add_(Tensor::zeros({3}), Tensor::zeros({2, 3})); }), "[2, 3]"));
  d.set_requires_grad(true);
  CHECK(contains(message_of([&] { ops::mul_scalar_(d, 2); }), "NoGradGuard"));
  const NoGradGuard off;
  ops::mul_scalar_(d, 2);
  CHECK(d.to_vector<float>()[4] == 5.0F);
}

TEST_CASE("a saved operand that was overwritten is noticed") {
  const Tensor x = row({1, 2});
  const Tensor w = row({3, 4});
  x.set_requires_grad(true);
  const Tensor y = ops::sum(ops::mul(x, w));
  ops::mul_scalar_(w, 2);
  CHECK(contains(message_of([&] { y.backward(); }), "[mul]"));
}

TEST_CASE("what add, sub and scaling do not need is not kept alive") {
  const Tensor a = row({1, 2});
  a.set_requires_grad(true);
  const Tensor b = row({1, 2});
  const Tensor y = ops::sum(ops::sub(ops::mul_scalar(a, 3), b));
  ops::mul_scalar_(b, 5);  // would be an error if sub had saved it
  y.backward();
  CHECK(a.grad().to_vector<float>() == std::vector<float>{3, 3});
}

TEST_CASE("errors name the op and both shapes") {
  const std::string shapes = message_of([] { (void)ops::mul(Tensor::zeros({2, 3}), Tensor::zeros({4})); });
  CHECK(contains(shapes, "[mul]"));
  CHECK(contains(shapes, "[2, 3]"));
  CHECK(contains(shapes, "[4]"));
  CHECK(contains(message_of([] { (void)ops::relu(Tensor::zeros({2}, DType::kI64)); }), "[relu] got a i64"));
  CHECK(contains(message_of([] { (void)ops::add(Tensor{}, Tensor::zeros({2})); }), "[add] got an undefined"));
  CHECK(contains(message_of([] { (void)ops::clamp(Tensor::zeros({2}), 1, 0); }), "[clamp]"));
}

TEST_SUITE_END();
