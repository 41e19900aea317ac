// Pooling: known answers, sizes with and without ceil mode, what is saved, equal maxima, NaN, messages.
#include "ops/pool2d.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/autograd.h"

using namespace limbeck;

TEST_SUITE_BEGIN("pool2d");

namespace {

/// 0, 1, 2, ... as [1,1,H,W]
Tensor ramp(std::int64_t h, std::int64_t w, DType dtype = DType::kF32) {
  std::vector<double> values(static_cast<std::size_t>(h * w));
  std::iota(values.begin(), values.end(), 0.0);
  return Tensor::from(values, {1, 1, h, w}).copy_as(dtype);
}

void check_values(const Tensor& t, const std::vector<double>& expected) {
  const auto values = t.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    if (values[i] != expected[i])
      CHECK(values[i] == doctest::Approx(expected[i]).epsilon(1e-6));  // infinities are equal
  }
}

}  // namespace

TEST_CASE("sizes") {
  CHECK(ops::pooled_size(256, 3, 2, 1, true) == 129);
  CHECK(ops::pooled_size(256, 3, 2, 1, false) == 128);
  CHECK(ops::pooled_size(257, 3, 2, 1, true) == 129);
  CHECK(ops::pooled_size(257, 3, 2, 1, false) == 129);
  // A last window of ceil mode that would start beyond the map, or in its far padding, is dropped.
  CHECK(ops::pooled_size(2, 1, 2, 0, true) == 1);
  CHECK(ops::pooled_size(5, 2, 3, 1, true) == 2);
  CHECK(ops::pooled_size(3, 2, 3, 1, true) == 2);
  const auto y =
      ops::max_pool2d(ramp(256, 257), {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .ceil_mode = true});
  CHECK(y.shape() == Shape({1, 1, 129, 129}));
  // The window at the far corner of 256 rows holds only the last row.
  CHECK(y.to_vector<float>().back() == 256.0F * 257.0F - 1.0F);
}

TEST_CASE("max pool by hand") {
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const Tensor x = ramp(4, 5, type).set_requires_grad(true);
    const Tensor y = ops::max_pool2d(x, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
    check_values(y, {6, 8, 9, 16, 18, 19});
    backward(y, Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {1, 1, 2, 3}));
    std::vector<double> expected(20, 0.0);
    expected[6] = 1, expected[8] = 2, expected[9] = 3, expected[16] = 4, expected[18] = 5, expected[19] = 6;
    check_values(x.grad(), expected);
  }
}

TEST_CASE("negative values win over padding, infinities are values") {
  const double low = -std::numeric_limits<double>::infinity();
  for (const DType type : {DType::kF64, DType::kF32}) {
    const Tensor x = Tensor::from(std::vector<double>{-3, -2, low, -4}, {1, 1, 2, 2}).copy_as(type);
    check_values(ops::max_pool2d(x, {.kernel = {2, 2}, .stride = {2, 2}, .padding = {1, 1}}), {-3, -2, low, -4});
  }
}

TEST_CASE("the first of equal maxima gets the gradient") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    const Tensor x = Tensor::full({1, 2, 3, 3}, -1.0, type).set_requires_grad(true);
    const Tensor y = ops::max_pool2d(x, {.kernel = {2, 2}, .stride = {1, 1}});
    backward(y, Tensor::full(y.shape(), 1.0, type));
    check_values(x.grad(), {1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0});
  }
}

TEST_CASE("NaN wins") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    for (const std::size_t place : {0U, 1U, 3U}) {
      std::vector<double> values{1, 2, 3, 4};
      values[place] = std::nan("");
      const Tensor x = Tensor::from(values, {1, 1, 2, 2}).copy_as(type);
      CHECK(std::isnan(ops::max_pool2d(x, {}).item()));
    }
  }
}

TEST_CASE("average: the two divisors") {
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const Tensor x = Tensor::full({1, 3, 4, 4}, 36.0, type);
    ops::Pool2dOptions options{.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}};
    std::vector<double> padded;
    for (int c = 0; c < 3; ++c) padded.insert(padded.end(), {16, 24, 24, 36});
    check_values(ops::avg_pool2d(x, options), padded);
    options.count_include_pad = false;
    check_values(ops::avg_pool2d(x, options), std::vector<double>(12, 36.0));
    // Ceil mode adds windows at the far border: one has 3x1 pixels of 3x2 positions, the corner one of 2x2.
    options = {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .ceil_mode = true};
    const auto y = ops::avg_pool2d(x, options);
    CHECK(y.shape() == Shape({1, 3, 3, 3}));
    const auto values = y.to_vector<double>();
    CHECK(values[5] == doctest::Approx(36.0 * 3 / 6));
    CHECK(values[8] == doctest::Approx(36.0 * 1 / 4));
  }
}

TEST_CASE("adaptive bins") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    check_values(ops::adaptive_avg_pool2d(ramp(5, 7, type), {3, 3}), {4.5, 6.5, 8.5, 15, 17, 19, 25.5, 27.5, 29.5});
    check_values(ops::adaptive_avg_pool2d(ramp(2, 2, type), {3, 2}), {0, 1, 1, 2, 2, 3});
    check_values(ops::global_avg_pool2d(ramp(5, 7, type)), {17});
  }
}

TEST_CASE("a global average of many pixels keeps its digits") {
  const std::int64_t side = 513;
  Tensor x = Tensor::full({1, 3, side, side}, 0.1);
  CHECK(ops::global_avg_pool2d(x).to_vector<double>()[1] == doctest::Approx(static_cast<double>(0.1F)).epsilon(2e-6));
}

TEST_CASE("messages") {
  const Tensor x = ramp(4, 4);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::max_pool2d(x, {.kernel = {2, 2}, .padding = {2, 0}})),
                       doctest::Contains("got padding 2, expected 0..1"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::avg_pool2d(x, {.kernel = {5, 5}})),
                       doctest::Contains("[avg_pool2d] kernel 5 does not fit"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::max_pool2d(x, {.kernel = {0, 2}})), doctest::Contains("at least 1"),
                       Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::adaptive_avg_pool2d(x, {0, 1})), doctest::Contains("0 x 1"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ops::global_avg_pool2d(Tensor::zeros({3, 4}))), doctest::Contains("[3, 4]"),
                       Error);
}

TEST_SUITE_END();
