// Reductions: known answers, precision of long sums, independence of threads, ties and NaN, errors.
#include "ops/reduce.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "core/parallel.h"
#include "ops/copy.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("reduce");

namespace {

Tensor iota(const Shape& shape) {
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  return Tensor::from(v, shape);
}

}  // namespace

TEST_CASE("known answers") {
  const Tensor x = iota({2, 3, 2, 2});  // 0..23
  CHECK(ops::sum(x).item() == 276);
  CHECK(ops::mean(x).item() == 11.5);
  CHECK(ops::sum(x, {0, 2, 3}).to_vector<float>() == std::vector<float>{60, 92, 124});
  CHECK(ops::mean(x, {1}).shape() == Shape{2, 2, 2});
  CHECK(ops::mean(x, {1}).to_vector<float>()[0] == 4);
  CHECK(ops::amax(x, {2, 3}).to_vector<float>() == std::vector<float>{3, 7, 11, 15, 19, 23});
  CHECK(ops::sum(x, {-1, -2}, true).shape() == Shape{2, 3, 1, 1});
  CHECK(ops::sum(Tensor::zeros({0, 3}), {0}).to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("a long sum is as good as in double") {
  // 2^21 numbers near 0.1: a single float accumulator would be off by more than 1e-3.
  Generator g(7);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Tensor x = Tensor::empty({1 << 21}, dtype);
    fill_uniform_(x, g, 0.05, 0.15);
    double exact = 0;
    for (const double v : x.to_vector<double>()) exact += v;
    CHECK(ops::sum(x).dtype() == DType::kF32);
    CHECK(ops::sum(x).item() == doctest::Approx(exact).epsilon(2e-7));
    const Tensor columns = ops::sum(ops::reshape(x, {1 << 19, 4}), {0});
    double total = 0;
    for (const double v : columns.to_vector<double>()) total += v;
    CHECK(total == doctest::Approx(exact).epsilon(2e-7));
  }
}

TEST_CASE("results do not depend on the number of threads, to the bit") {
  Generator g(5);
  const Tensor x = test::random_normal(g, {3, 40, 61, 47}).copy_as(DType::kF32);
  const auto compute = [&] {
    std::vector<float> all;
    const Tensor results[] = {ops::sum(x),          ops::mean(x, {0, 2, 3}), ops::sum(x, {2, 3}), ops::sum(x, {1}),
                              ops::amax(x, {1, 2}), ops::sum(x, {0}),        ops::sum(x, {1, 3})};
    for (const Tensor& t : results) {
      const auto v = t.to_vector<float>();
      all.insert(all.end(), v.begin(), v.end());
    }
    return all;
  };
  const int threads = max_threads();
  set_threads(1);
  const auto one = compute();
  for (const int count : {2, 3, 7}) {
    set_threads(count);
    CHECK(compute() == one);
  }
  set_threads(threads);
}

TEST_CASE("argmax: class maps, ties to the lowest index, NaN first") {
  const Tensor scores = Tensor::from(std::vector<float>{1, 5, 0, 2,     // class 0
                                                        1, 7, 0, 2.5F,  // class 1
                                                        1, 6, 1, 2},    // class 2
                                     {1, 3, 2, 2});
  const Tensor ids = ops::argmax(scores, 1);
  CHECK(ids.dtype() == DType::kI64);
  CHECK(ids.shape() == Shape{1, 2, 2});
  CHECK(ids.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 1, 2, 1});

  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor broken = Tensor::from(std::vector<float>{3, nan, 9, nan}, {4});
  CHECK(ops::argmax(broken, 0).item() == 1);
  CHECK(std::isnan(ops::amax(broken, {0}).item()));
  {
    const ReferenceGuard reference;
    CHECK(ops::argmax(broken, 0).item() == 1);
    CHECK(std::isnan(ops::amax(broken, {0}).item()));
  }
}

TEST_CASE("argmax over channels: the tiled kernel agrees with the reference on ties and NaN") {
  for (const std::int64_t classes : {1, 2, 19, 21, 150, 300}) {
    Generator g(static_cast<std::uint64_t>(classes));
    Tensor x = Tensor::empty({2, classes, 9, 13});
    auto* p = x.data<float>();
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const auto drawn = g.below(40);  // few values: many ties
      p[i] = drawn == 39 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(drawn) - 50.0F;
    }
    const Tensor fast = ops::argmax(x, 1);
    const Tensor low = ops::argmax(x.copy_as(DType::kBF16), 1);  // the values are exact in bf16
    const ReferenceGuard reference;
    const auto expected = ops::argmax(x, 1).to_vector<std::int64_t>();
    CHECK(fast.to_vector<std::int64_t>() == expected);
    CHECK(low.to_vector<std::int64_t>() == expected);
  }
}

TEST_CASE("amax shares the gradient among ties") {
  const Tensor x = Tensor::from(std::vector<float>{2, 1, 2, 0}, {4});
  x.set_requires_grad(true);
  ops::amax(x, {0}).backward();
  CHECK(x.grad().to_vector<float>() == std::vector<float>{0.5F, 0, 0.5F, 0});
}

TEST_CASE("errors") {
  const Tensor x = iota({2, 3});
  CHECK(contains(message_of([&] { (void)ops::sum(x, {2}); }), "[sum] got dimension 2, expected -2..1"));
  CHECK(contains(message_of([&] { (void)ops::mean(x, {1, -1}); }), "[mean] dimension -1 is named twice"));
  CHECK(contains(message_of([&] { (void)ops::mean(Tensor::zeros({0, 2})); }), "[0, 2] without elements"));
  CHECK(contains(message_of([&] { (void)ops::argmax(Tensor::zeros({2, 0}), 1); }), "[argmax]"));
}

TEST_SUITE_END();
