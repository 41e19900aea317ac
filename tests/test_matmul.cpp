// Matrix products: known answers, layouts that need no copy, master weights, empty products, errors.
#include "ops/matmul.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/slice.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("matmul");

namespace {

Tensor normal(Generator& g, const Shape& shape) { return test::random_normal(g, shape).copy_as(DType::kF32); }

}  // namespace

TEST_CASE("known answers") {
  const Tensor a = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor b = Tensor::from(std::vector<float>{1, 0, 0, 1, 1, 1}, {3, 2});
  CHECK(ops::matmul(a, b).to_vector<float>() == std::vector<float>{4, 5, 10, 11});
  CHECK(ops::matmul(a, a, false, true).to_vector<float>() == std::vector<float>{14, 32, 32, 77});
  const Tensor w = Tensor::from(std::vector<float>{1, 1, 1}, {1, 3});
  CHECK(ops::linear(a, w, Tensor::full({1}, 0.5)).to_vector<float>() == std::vector<float>{6.5F, 15.5F});
}

TEST_CASE("a channels-last map is a matrix of pixels") {
  // The affinity of pixels, F^T F, as distillation losses write it; every operand is a view.
  Generator g(1);
  const Tensor map = normal(g, {2, 5, 3, 4});
  const Tensor pixels = ops::reshape(ops::permute(map, {0, 2, 3, 1}), {2, 12, 5});
  CHECK(pixels.raw_data() == map.raw_data());
  const Tensor affinity = ops::matmul(pixels, pixels, false, true);
  REQUIRE(affinity.shape() == Shape{2, 12, 12});
  const TensorView m = map.view();
  const TensorView y = affinity.view();
  for (std::int64_t n = 0; n < 2; ++n) {
    for (std::int64_t i = 0; i < 12; ++i) {
      for (std::int64_t j = 0; j < 12; ++j) {
        float expected = 0;
        for (std::int64_t c = 0; c < 5; ++c)
          expected += m.at<float>(n, c, i / 4, i % 4) * m.at<float>(n, c, j / 4, j % 4);
        REQUIRE(y.at<float>(n, i, j) == doctest::Approx(expected).epsilon(1e-4));
      }
    }
  }
}

TEST_CASE("slices, permuted batches and sizes of one are read correctly") {
  Generator g(2);
  const Tensor wide = normal(g, {6, 20});
  const Tensor batch = normal(g, {4, 3, 5});
  const auto compute = [&] {
    return std::vector{ops::matmul(ops::slice(wide, 1, 2, 9), ops::slice(wide, 1, 11, 18), true),  // gaps between rows
                       ops::matmul(ops::permute(batch, {1, 2, 0}), ops::permute(batch, {1, 0, 2})),  // gaps in both
                       ops::matmul(ops::slice(wide, 0, 1, 2), ops::slice(wide, 0, 4, 5), false, true),
                       ops::matmul(ops::slice(wide, 1, 3, 4), ops::slice(wide, 1, 7, 8), false, true),
                       ops::matmul(ops::slice(wide, 1, 3, 4), ops::slice(wide, 1, 7, 8), true)};
  };
  const auto fast = compute();
  const ReferenceGuard reference;
  const auto exact = compute();
  for (std::size_t i = 0; i < fast.size(); ++i) CHECK(test::relative_error(fast[i], exact[i]) < 1e-5);
}

TEST_CASE("bf16 input with f32 master weights: parameter gradients are f32 and not rounded to bf16") {
  Generator g(3);
  const Tensor x = normal(g, {64, 33});
  const Tensor w = normal(g, {7, 33}).set_requires_grad(true);
  const Tensor b = normal(g, {7}).set_requires_grad(true);
  const Tensor seed = Tensor::full({64, 7}, 1.0);
  Tensor y;
  {
    const AutocastGuard on;
    y = ops::linear(x, w, b);
  }
  CHECK(y.dtype() == DType::kBF16);
  backward(y, seed);
  REQUIRE(w.grad().dtype() == DType::kF32);
  REQUIRE(b.grad().dtype() == DType::kF32);
  // Seed 1: gw[o,i] is the sum over samples of the rounded inputs, gb the number of samples.
  const auto rounded = x.copy_as(DType::kBF16).to_vector<double>();
  const auto gw = w.grad().to_vector<double>();
  for (std::size_t i = 0; i < 33; ++i) {
    double expected = 0;
    for (std::size_t n = 0; n < 64; ++n) expected += rounded[n * 33 + i];
    CHECK(std::abs(gw[i] - expected) < 1e-4);  // a bf16 gradient would be off by up to 2^-9 of its size
  }
  CHECK(b.grad().to_vector<float>() == std::vector<float>(7, 64.0F));
}

TEST_CASE("only the gradients that are asked for are computed") {
  Generator g(4);
  const Tensor a = normal(g, {3, 4});
  const Tensor b = normal(g, {4, 2}).set_requires_grad(true);
  backward(ops::matmul(a, b), Tensor::full({3, 2}, 1.0));
  CHECK_FALSE(a.grad().defined());
  CHECK(b.grad().shape() == Shape{4, 2});
}

TEST_CASE("a weight changed between forward and backward is noticed, also under autocast") {
  Generator g(5);
  const Tensor x = normal(g, {3, 4}).set_requires_grad(true);
  const Tensor w = normal(g, {2, 4});
  const AutocastGuard on;
  const Tensor y = ops::linear(x, w);
  ops::mul_scalar_(w, 0.5);
  CHECK(contains(message_of([&] { backward(y, Tensor::full({3, 2}, 1.0)); }), "[linear]"));
}

TEST_CASE("empty products") {
  CHECK(ops::matmul(Tensor::zeros({2, 0}), Tensor::zeros({0, 3})).to_vector<float>() == std::vector<float>(6, 0.0F));
  CHECK(ops::matmul(Tensor::zeros({0, 2}), Tensor::zeros({2, 3})).shape() == Shape{0, 3});
  const Tensor y = ops::linear(Tensor::zeros({2, 0}), Tensor::zeros({3, 0}), Tensor::full({3}, 2.0));
  CHECK(y.to_vector<float>() == std::vector<float>(6, 2.0F));
}

TEST_CASE("errors name both shapes") {
  const std::string inner = message_of([] {
    (void)ops::matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 5}), false, true);
  });
  CHECK(contains(inner, "[matmul] got shapes [2, 3] and [4, 5] (transposed): 3 columns against 5 rows"));
  CHECK(contains(message_of([] {
                   (void)ops::matmul(Tensor::zeros({2, 3, 4}), Tensor::zeros({1, 4, 5}));
                 }),
                 "batches differ"));
  CHECK(contains(message_of([] { (void)ops::matmul(Tensor::zeros({3}), Tensor::zeros({3, 5})); }), "[B,M,K]"));
  CHECK(contains(message_of([] {
                   (void)ops::linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 5}));
                 }),
                 "[2, 3] and weight [4, 5]"));
  CHECK(contains(message_of([] {
                   (void)ops::linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({3}));
                 }),
                 "bias [3]"));
  CHECK(contains(message_of([] {
                   (void)ops::linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}, DType::kF64));
                 }),
                 "f64 weight"));
}

TEST_SUITE_END();
