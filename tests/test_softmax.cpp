// Softmax and log-softmax: known values, agreement with generic ops, stability, error messages.
#include <doctest/doctest.h>

#include <cmath>

#include "core/autocast.h"
#include "core/rng.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using ops::SoftmaxAxis;

TEST_CASE("softmax: known values over the channels") {
  const Tensor x = Tensor::from(std::vector<float>{0.0F, std::log(2.0F), std::log(3.0F)}, {1, 3, 1, 1});
  const auto p = ops::softmax(x).to_vector<double>();
  CHECK(p[0] == doctest::Approx(1.0 / 6).epsilon(1e-6));
  CHECK(p[1] == doctest::Approx(2.0 / 6).epsilon(1e-6));
  CHECK(p[2] == doctest::Approx(3.0 / 6).epsilon(1e-6));
  const auto l = ops::log_softmax(x).to_vector<double>();
  CHECK(l[0] == doctest::Approx(-std::log(6.0)).epsilon(1e-6));
}

TEST_CASE("softmax: sums to one along its axis only") {
  Generator g(3);
  Tensor x = Tensor::empty({2, 19, 6, 7});
  fill_normal_(x, g, 0, 3);
  for (const double v : ops::sum(ops::softmax(x), {1}, false).to_vector<double>()) {
    CHECK(v == doctest::Approx(1.0).epsilon(1e-5));
  }
  for (const double v : ops::sum(ops::softmax(x, SoftmaxAxis::kSpatial), {2, 3}, false).to_vector<double>()) {
    CHECK(v == doctest::Approx(1.0).epsilon(1e-5));
  }
}

TEST_CASE("softmax: value and gradient of the composite of generic ops, in f64") {
  const Tensor weights = wave_map(0.7, 0.2, 1.0, 0.3, {2, 3, 4, 5});
  for (const bool spatial : {false, true}) {
    const Shape dims = spatial ? Shape{2, 3} : Shape{1};
    const SoftmaxAxis axis = spatial ? SoftmaxAxis::kSpatial : SoftmaxAxis::kChannel;
    const auto objective = [&](const Tensor& y) { return ops::sum(ops::mul(y, weights)); };
    const auto composite = [&](const Tensor& x) {
      const Tensor e = ops::exp(x);
      return ops::div(e, ops::sum(e, dims, true));
    };
    check_composite([&](const Tensor& x) { return objective(ops::softmax(x, axis)); },
                    [&](const Tensor& x) { return objective(composite(x)); });
    check_composite([&](const Tensor& x) { return objective(ops::log_softmax(x, axis)); },
                    [&](const Tensor& x) { return objective(ops::log(composite(x))); });
  }
}

TEST_CASE("softmax: finite for inputs of +-1e4, and unchanged by a shift") {
  for (const SoftmaxAxis axis : {SoftmaxAxis::kChannel, SoftmaxAxis::kSpatial}) {
    const Tensor x = ops::mul_scalar(oracle_student(), 4000).copy_as(DType::kF32);
    for (const double v : ops::softmax(x, axis).to_vector<double>()) CHECK((v >= 0 && v <= 1));
    for (const double v : ops::log_softmax(x, axis).to_vector<double>()) CHECK((v <= 0 && v >= -4e4));
    const Tensor y = oracle_student().copy_as(DType::kF32);
    const Tensor shifted = ops::add_scalar(y, 512);  // exact enough in f32: 512 keeps 14 bits of fraction
    CHECK(gap(ops::softmax(shifted, axis).to_vector<double>(), ops::softmax(y, axis).to_vector<double>()) < 1e-4);
  }
}

TEST_CASE("softmax: one channel, one position") {
  const Tensor x = Tensor::full({2, 1, 3, 3}, 7.0);
  for (const double v : ops::softmax(x).to_vector<double>()) CHECK(v == 1.0);
  for (const double v : ops::log_softmax(x).to_vector<double>()) CHECK(v == 0.0);
  const Tensor point = Tensor::full({2, 5, 1, 1}, -7.0);
  for (const double v : ops::softmax(point, SoftmaxAxis::kSpatial).to_vector<double>()) CHECK(v == 1.0);
}

TEST_CASE("softmax: autocast computes in f32") {
  const Tensor x = Tensor::full({1, 3, 2, 2}, 1.0, DType::kBF16);
  CHECK(ops::softmax(x).dtype() == DType::kBF16);
  const AutocastGuard autocast;
  CHECK(ops::softmax(x).dtype() == DType::kF32);
  const Tensor leaf = x.copy();
  leaf.set_requires_grad(true);
  ops::sum(ops::softmax(leaf)).backward();
  CHECK(leaf.grad().dtype() == DType::kBF16);
}

TEST_CASE("softmax: wrong inputs are named") {
  CHECK(contains(message_of([] { return ops::softmax(Tensor::zeros({2, 3, 4})); }), "[2, 3, 4]"));
  CHECK(contains(message_of([] { return ops::softmax(Tensor::zeros({2, 3}), SoftmaxAxis::kSpatial); }), "[2, 3]"));
  CHECK(contains(message_of([] { return ops::softmax(Tensor::zeros({1, 2, 2, 2}, DType::kI32)); }), "i32"));
  CHECK(contains(message_of([] { return ops::log_softmax(Tensor()); }), "log_softmax"));
}
