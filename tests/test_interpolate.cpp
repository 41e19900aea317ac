// Resizing: known answers, exact positions, broadcasting of one pixel, adjointness, labels, threads, messages.
#include "ops/interpolate.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "tests/harness/op_case.h"

using namespace limbeck;

TEST_SUITE_BEGIN("interpolate");

namespace {

void check_values(const Tensor& t, const std::vector<double>& expected, double tolerance = 1e-6) {
  const auto values = t.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(values[i] - expected[i]) <= tolerance);
  }
}

Tensor normal(const Shape& shape, std::uint64_t seed) {
  Tensor t = Tensor::empty(shape);
  Generator g(seed);
  fill_normal_(t, g, 0.0, 1.0);
  return t;
}

double dot(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>();
  const auto y = b.to_vector<double>();
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() &&
         std::memcmp(a.raw_data(), b.raw_data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

}  // namespace

TEST_CASE("2x2 to 3x4") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    const Tensor x = Tensor::from(std::vector<double>{0, 1, 2, 3}, {1, 1, 2, 2}).copy_as(type);
    check_values(ops::resize_bilinear(x, {3, 4}, true),
                 {0, 1. / 3, 2. / 3, 1, 1, 4. / 3, 5. / 3, 2, 2, 7. / 3, 8. / 3, 3});
    check_values(ops::resize_bilinear(x, {3, 4}, false), {0, .25, .75, 1, 1, 1.25, 1.75, 2, 2, 2.25, 2.75, 3});
  }
}

TEST_CASE("shrinking takes the two neighbours and nothing else") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    const Tensor x = Tensor::from(std::vector<double>{0, 1, 10, 100, 1000, 7}, {1, 1, 1, 6}).copy_as(type);
    check_values(ops::resize_bilinear(x, {1, 2}, true), {0, 7});
    check_values(ops::resize_bilinear(x, {1, 2}, false), {1, 1000});  // src 1 and 4
    check_values(ops::resize_bilinear(x, {1, 3}, false), {0.5, 55, 503.5});
    check_values(ops::resize_bilinear(x, {1, 1}, true), {0});  // defined as position 0
    check_values(ops::resize_bilinear(x, {1, 1}, false), {55});
  }
}

TEST_CASE("positions are exact: multiples of the stride reproduce the input with align_corners") {
  const Tensor x = normal({1, 21, 33, 33}, 3);
  const Tensor y = ops::resize_bilinear(x, {513, 513}, true);
  for (const std::int64_t h : {0, 1, 17, 32}) {
    for (const std::int64_t w : {0, 5, 31, 32}) {
      for (const std::int64_t c : {0, 20}) {
        CHECK(y.view().at<float>(0, c, 16 * h, 16 * w) == x.view().at<float>(0, c, h, w));
      }
    }
  }
}

TEST_CASE("one pixel becomes a constant map, its gradient the sum") {
  for (const bool align : {false, true}) {
    const Tensor x = normal({2, 37, 1, 1}, 4).set_requires_grad(true);
    const Tensor y = ops::resize_bilinear(x, {16, 17}, align);
    for (std::int64_t n = 0; n < 2; ++n) {
      for (std::int64_t c = 0; c < 37; ++c) {
        CHECK(y.view().at<float>(n, c, 0, 0) == x.view().at<float>(n, c, 0, 0));
        CHECK(y.view().at<float>(n, c, 9, 16) == x.view().at<float>(n, c, 0, 0));
      }
    }
    backward(y, Tensor::full(y.shape(), 0.5));
    check_values(x.grad(), std::vector<double>(74, 0.5 * 16 * 17));
  }
}

TEST_CASE("the backward is the adjoint of the forward") {
  for (const bool align : {false, true}) {
    for (const auto& size : {std::array<std::int64_t, 2>{64, 40}, {5, 3}, {9, 33}}) {
      const Tensor x = normal({2, 11, 16, 13}, 5).set_requires_grad(true);
      const Tensor y = ops::resize_bilinear(x, size, align);
      const Tensor g = normal(y.shape(), 6);
      backward(y, g);
      CHECK(dot(y.detach(), g) == doctest::Approx(dot(x.detach(), x.grad())).epsilon(1e-4));
    }
  }
}

TEST_CASE("an infinite gradient stays in its image") {
  const Tensor x = normal({2, 3, 4, 4}, 5).set_requires_grad(true);
  Tensor g = Tensor::full({2, 3, 9, 9}, 1.0);
  g.view().at<float>(0, 0, 8, 8) = std::numeric_limits<float>::infinity();
  const int before = max_threads();
  set_threads(1);  // one thread passes from image to image
  backward(ops::resize_bilinear(x, {9, 9}, false), g);
  set_threads(before);
  CHECK(std::isinf(x.grad().view().at<float>(0, 0, 3, 3)));
  CHECK(std::isfinite(x.grad().view().at<float>(1, 0, 0, 3)));
}

TEST_CASE("nearest") {
  std::vector<double> values(16);
  std::iota(values.begin(), values.end(), 0.0);
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kU8}) {
    const Tensor x = Tensor::from(values, {1, 1, 4, 4}).copy_as(type);
    check_values(ops::resize_nearest(x, {3, 3}), {0, 1, 2, 4, 5, 6, 8, 9, 10});
    const Tensor labels = Tensor::from(values, {4, 2, 2}).copy_as(type);
    CHECK(ops::resize_nearest(labels, {3, 5}).shape() == Shape({4, 3, 5}));
    check_values(ops::resize_nearest(labels.alias({1, 2, 2}, labels.strides(), 4), {2, 3}), {4, 4, 5, 6, 6, 7});
  }
  // floor(dst in / out) at every place, also where floating point would round the quotient down
  for (const std::int64_t in : {3, 7, 49, 255}) {
    std::vector<std::int64_t> index(static_cast<std::size_t>(in));
    std::iota(index.begin(), index.end(), 0);
    const Tensor x = Tensor::from(index, {1, 1, in});
    for (const std::int64_t out : {1, 5, 98, 513}) {
      const auto y = ops::resize_nearest(x, {1, out}).to_vector<std::int64_t>();
      for (std::int64_t o = 0; o < out; ++o) CHECK(y[static_cast<std::size_t>(o)] == o * in / out);
    }
  }
}

TEST_CASE("results do not depend on the number of threads") {
  const int before = max_threads();
  std::vector<Tensor> first;
  for (const int threads : {1, 2, 5}) {
    set_threads(threads);
    const Tensor x = normal({3, 11, 17, 19}, 7).set_requires_grad(true);
    const Tensor y = ops::resize_bilinear(x, {131, 120}, false);
    backward(y, normal(y.shape(), 8));
    const std::vector<Tensor> results{y.detach(), x.grad()};
    if (first.empty()) first = results;
    CHECK(same_bits(results[0], first[0]));
    CHECK(same_bits(results[1], first[1]));
  }
  set_threads(before);
}

TEST_CASE("outputs beyond the cache are written correctly") {
  const Tensor x = normal({2, 21, 33, 33}, 9);
  const Tensor whole = ops::resize_bilinear(x, {181, 183}, false);
  REQUIRE(whole.numel() * 4 > (4 << 20));
  const Tensor second = ops::resize_bilinear(x.alias({1, 21, 33, 33}, x.strides(), 21 * 33 * 33), {181, 183}, false);
  CHECK(same_bits(second, whole.alias(second.shape(), second.strides(), second.numel())));
}

TEST_CASE("an input of the right size is returned as it is") {
  const Tensor x = normal({1, 2, 3, 4}, 1);
  CHECK(ops::resize_bilinear(x, {3, 4}, false).raw_data() == x.raw_data());
  CHECK(ops::resize_nearest(x, {3, 4}).raw_data() == x.raw_data());
}

TEST_CASE("messages") {
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::resize_bilinear(Tensor::zeros({3, 4, 5}), {2, 2}, true)),
                       doctest::Contains("[resize_bilinear] got an input of shape [3, 4, 5]"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::resize_bilinear(Tensor::zeros({1, 3, 4, 5}), {0, 2}, true)),
                       doctest::Contains("0 x 2"), Error);
  CHECK_THROWS_AS(static_cast<void>(ops::resize_bilinear(Tensor::zeros({1, 3, 4, 5}, DType::kU8), {2, 2}, true)),
                  Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::resize_nearest(Tensor::zeros({4, 5}), {2, 2})),
                       doctest::Contains("[4, 5]"), Error);
}

TEST_SUITE_END();
