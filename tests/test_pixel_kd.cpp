// Pixel-wise distillation: oracles of all four reductions, agreement with generic ops, invariants, error messages.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "distill/pixel_kd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::pixel_kd;
using distill::PixelKdOptions;
using distill::PixelKdReduction;

namespace {

constexpr PixelKdReduction kAll[] = {PixelKdReduction::kMeanAll, PixelKdReduction::kPerPixel,
                                     PixelKdReduction::kBatchMean, PixelKdReduction::kSkdCrossEntropy};

void check_row(PixelKdReduction reduction, double tau, const OracleRow& row) {
  CAPTURE(std::string(distill::name_of(reduction)));
  CAPTURE(tau);
  check_oracle(
      [&](const Tensor& s) {
        return pixel_kd(s, oracle_teacher().copy_as(s.dtype()), {.tau = tau, .reduction = reduction});
      },
      row);
}

}  // namespace

TEST_CASE("pixel_kd: oracles of the four reductions") {
  check_row(PixelKdReduction::kMeanAll, 1, {0.338352414803, 0.0413706004287, -0.00599159635204});
  check_row(PixelKdReduction::kMeanAll, 4, {0.0288403031952, 0.0031967066968, -0.000429586461519});
  check_row(PixelKdReduction::kPerPixel, 1, {1.01505724441, 0.124111801286, -0.0179747890561});
  check_row(PixelKdReduction::kPerPixel, 4, {1.38433455337, 0.153441921447, -0.0206201501529});
  check_row(PixelKdReduction::kBatchMean, 1, {20.3011448882, 2.48223602572, -0.359495781123});
  check_row(PixelKdReduction::kBatchMean, 4, {27.6866910674, 3.06883842893, -0.412403003058});
  check_row(PixelKdReduction::kSkdCrossEntropy, 1, {3.28679822646, 0.248223602572, -0.0359495781123});
}

TEST_CASE("pixel_kd: oracle with ignored pixels, tau 4") {
  check_oracle(
      [&](const Tensor& s) { return pixel_kd(s, oracle_teacher().copy_as(s.dtype()), {.tau = 4}, oracle_labels()); },
      {1.20406589280591, 0.165233745394056, -0.0274935335372288});
}

TEST_CASE("pixel_kd: value and gradient of the composite of generic ops, in f64") {
  const double tau = 3;
  const Tensor t = oracle_teacher();
  const auto ln = [&](const Tensor& x) { return ops::log_softmax(ops::mul_scalar(x, 1 / tau)); };
  check_composite([&](const Tensor& s) { return pixel_kd(s, t, {.tau = tau}); },
                  [&](const Tensor& s) {
                    return ops::mul_scalar(ops::sum(ops::mul(ops::exp(ln(t)), ops::sub(ln(t), ln(s)))), tau * tau / 40);
                  });
  const PixelKdOptions skd{.tau = tau, .reduction = PixelKdReduction::kSkdCrossEntropy};
  check_composite([&](const Tensor& s) { return pixel_kd(s, t, skd); },
                  [&](const Tensor& s) {
                    return ops::mul_scalar(ops::sum(ops::mul(ops::softmax(ops::mul_scalar(t, 1 / tau)), ln(s))),
                                           -1.0 / 20);
                  });
}

TEST_CASE("pixel_kd: the promises of every loss") {
  for (const PixelKdReduction reduction : kAll) {
    CAPTURE(std::string(distill::name_of(reduction)));
    const PairLoss loss = [&](const Tensor& s, const Tensor& t) {
      return pixel_kd(s, t, {.tau = 2, .reduction = reduction});
    };
    if (reduction != PixelKdReduction::kSkdCrossEntropy) check_zero_for_equal_maps(loss, {2, 19, 9, 11});
    check_threads(loss, {2, 19, 61, 67}, {2, 19, 61, 67});
    check_mixed_types(loss, {2, 3, 4, 5}, {2, 3, 4, 5}, 1e-5);
    check_nan_shows(loss, {2, 3, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("pixel_kd: the cross entropy of equal maps is the teacher's entropy, without gradient") {
  const Tensor t = noise_map({2, 19, 9, 11}, 7, 3);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Tensor map = t.copy_as(type);
    const PixelKdOptions skd{.tau = 2, .reduction = PixelKdReduction::kSkdCrossEntropy};
    const auto r = differentiate([&](const Tensor& s) { return pixel_kd(s, map, skd); }, map);
    CHECK(largest_magnitude(r.gradient) == 0.0);
    const Tensor ln_p = ops::log_softmax(ops::mul_scalar(map.copy_as(DType::kF64), 0.5));
    const double entropy = -ops::sum(ops::mul(ops::exp(ln_p), ln_p)).item() / (9 * 11);
    CHECK(r.loss == doctest::Approx(entropy).epsilon(1e-5));
  }
}

TEST_CASE("pixel_kd: unchanged by a shift of either map") {
  const Tensor s = oracle_student().copy_as(DType::kF32);
  const Tensor t = oracle_teacher().copy_as(DType::kF32);
  const double plain = pixel_kd(s, t, {.tau = 2}).item();
  CHECK(pixel_kd(ops::add_scalar(s, 64), t, {.tau = 2}).item() == doctest::Approx(plain).epsilon(1e-4));
  CHECK(pixel_kd(s, ops::add_scalar(t, -64), {.tau = 2}).item() == doctest::Approx(plain).epsilon(1e-4));
}

TEST_CASE("pixel_kd: gradients of a pixel sum to zero") {
  const auto s = oracle_student();
  s.set_requires_grad(true);
  pixel_kd(s, oracle_teacher()).backward();
  for (const double v : ops::sum(s.grad(), {1}, false).to_vector<double>()) CHECK(std::abs(v) < 1e-15);
}

TEST_CASE("pixel_kd: everything ignored gives 0, not NaN") {
  const Tensor labels = Tensor::full({2, 4, 5}, 255, DType::kU8);
  for (const PixelKdReduction reduction : kAll) {
    for (const DType type : {DType::kF64, DType::kF32}) {
      const Tensor t = oracle_teacher().copy_as(type);
      const auto r = differentiate([&](const Tensor& s) { return pixel_kd(s, t, {.reduction = reduction}, labels); },
                                   oracle_student().copy_as(type));
      CHECK(r.loss == 0.0);
      CHECK(largest_magnitude(r.gradient) == 0.0);
    }
  }
}

TEST_CASE("pixel_kd: ignored pixels do not count, even if their scores are NaN") {
  const Tensor t = oracle_teacher().copy_as(DType::kF32);
  const Tensor dirty = oracle_student().copy_as(DType::kF32);
  dirty.view().at<float>(0, 1, 1, 0) = std::numeric_limits<float>::quiet_NaN();  // label (0,1,0) is 3, so 255
  const auto loss = [&](const Tensor& s) { return pixel_kd(s, t, {}, oracle_labels()); };
  const auto a = differentiate(loss, oracle_student().copy_as(DType::kF32));
  const auto b = differentiate(loss, dirty);
  CHECK(a.loss == b.loss);
  CHECK(gap(b.gradient, a.gradient) == 0.0);
}

TEST_CASE("pixel_kd: one class is always certain") {
  const auto r = differentiate(
      [](const Tensor& s) {
        return pixel_kd(s, Tensor::full({2, 1, 3, 3}, 5.0), {});
      },
      Tensor::full({2, 1, 3, 3}, -2.0));
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
}

TEST_CASE("pixel_kd: finite for logits of +-1e4, and for a class that both maps exclude") {
  const Tensor s = ops::mul_scalar(oracle_student(), 4000).copy_as(DType::kF32);
  const Tensor t = ops::mul_scalar(oracle_teacher(), 4000).copy_as(DType::kF32);
  for (const PixelKdReduction reduction : kAll) {
    const auto r = differentiate([&](const Tensor& x) { return pixel_kd(x, t, {.reduction = reduction}); }, s);
    CHECK(std::isfinite(r.loss));
    CHECK(r.loss > 0);
    CHECK(largest_magnitude(r.gradient) <= 1.0);
  }
  const Tensor excluded = oracle_student().copy_as(DType::kF32);
  for (std::int64_t w = 0; w < 5; ++w) excluded.view().at<float>(0, 2, 0, w) = -std::numeric_limits<float>::infinity();
  const auto r = differentiate([&](const Tensor& x) { return pixel_kd(x, excluded, {}); }, excluded);
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
}

TEST_CASE("pixel_kd: a factor behind the loss reaches the gradient") {
  const Tensor t = oracle_teacher();
  const auto one = differentiate([&](const Tensor& s) { return pixel_kd(s, t); }, oracle_student());
  const auto ten =
      differentiate([&](const Tensor& s) { return ops::mul_scalar(pixel_kd(s, t), 10); }, oracle_student());
  for (std::size_t i = 0; i < one.gradient.size(); ++i) {
    CHECK(ten.gradient[i] == doctest::Approx(10 * one.gradient[i]).epsilon(1e-12));
  }
}

TEST_CASE("pixel_kd: wrong arguments are named") {
  const Tensor s = Tensor::zeros({2, 3, 4, 5});
  CHECK(contains(message_of([&] { return pixel_kd(s, Tensor::zeros({2, 3, 8, 10})); }), "[2, 3, 8, 10]"));
  CHECK(contains(message_of([&] { return pixel_kd(s, Tensor::zeros({2, 3, 8, 10})); }), "[2, 3, 4, 5]"));
  CHECK(contains(message_of([&] { return pixel_kd(s, s, {.tau = 0}); }), "tau = 0"));
  CHECK(contains(message_of([&] { return pixel_kd(s, s, {.tau = -1}); }), "tau = -1"));
  CHECK(contains(message_of([&] { return pixel_kd(s, s, {.tau = std::nan("")}); }), "tau"));
  CHECK(contains(message_of([&] { return pixel_kd(s, s, {}, Tensor::zeros({2, 5, 4}, DType::kU8)); }), "[2, 5, 4]"));
  CHECK(contains(message_of([&] { return pixel_kd(s, s, {}, Tensor::zeros({2, 4, 5})); }), "f32"));
}

TEST_CASE("pixel_kd: names of the reductions") {
  for (const PixelKdReduction r : kAll) CHECK(distill::parse_pixel_kd_reduction(distill::name_of(r)) == r);
  CHECK(contains(message_of<ConfigError>([] { return distill::parse_pixel_kd_reduction("mean"); }), "per_pixel"));
}
