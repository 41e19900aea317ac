// The objective of the feature autoencoder: oracles, agreement with generic ops, invariants, error messages.
#include <doctest/doctest.h>

#include "distill/ka_autoencoder_loss.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::ka_autoencoder_loss;

namespace {

Tensor reconstruction() { return wave_map(0.31, 0.4, 1.0, 0.2, {2, 3, 4, 5}); }
Tensor code() { return wave_map(0.29, 0.2, 1.0, 0.3, {2, 2, 4, 5}); }

}  // namespace

TEST_CASE("ka_autoencoder_loss: oracles") {
  constexpr double kSquares = 2.35313984373;     // mean over N C H W
  constexpr double kMagnitudes = 53.1144512842;  // sum |E|
  for (const DType type : {DType::kF64, DType::kF32}) {
    const double tolerance = type == DType::kF64 ? 1e-10 : 1e-6;
    const auto value = [&](const distill::KaAutoencoderOptions& options) {
      return ka_autoencoder_loss(reconstruction().copy_as(type), code().copy_as(type), oracle_teacher().copy_as(type),
                                 options)
          .item();
    };
    CHECK(value({.alpha = 0}) == doctest::Approx(kSquares).epsilon(tolerance));
    CHECK(value({}) == doctest::Approx(kSquares + 1e-7 / 2 * kMagnitudes).epsilon(tolerance));
    CHECK(value({.alpha = 3}) == doctest::Approx(kSquares + 1.5 * kMagnitudes).epsilon(tolerance));
    CHECK(value({.alpha = 3, .sum_over_batch = true}) ==
          doctest::Approx(kSquares + 3 * kMagnitudes).epsilon(tolerance));
  }
}

TEST_CASE("ka_autoencoder_loss: value and gradients of the composite of generic ops, in f64") {
  const Tensor map = oracle_teacher();
  const auto composite = [&](const Tensor& r, const Tensor& e) {
    return ops::add(ops::mean(ops::square(ops::sub(r, map))), ops::mul_scalar(ops::sum(ops::abs(e)), 0.2 / 2));
  };
  const auto fused = [&](const Tensor& r, const Tensor& e) { return ka_autoencoder_loss(r, e, map, {.alpha = 0.2}); };
  check_composite([&](const Tensor& r) { return fused(r, code()); },
                  [&](const Tensor& r) { return composite(r, code()); }, reconstruction());
  check_composite([&](const Tensor& e) { return fused(reconstruction(), e); },
                  [&](const Tensor& e) { return composite(reconstruction(), e); }, code());
}

TEST_CASE("ka_autoencoder_loss: the promises of every loss") {
  const PairLoss loss = [](const Tensor& r, const Tensor& map) {
    return ka_autoencoder_loss(r, Tensor::zeros({r.size(0), 2, 3, 3}, r.dtype()), map, {.alpha = 1});
  };
  check_zero_for_equal_maps(loss, {2, 19, 13, 11});
  check_zero_for_equal_maps(loss, {2, 1, 1, 1});
  check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14});
  check_threads(loss, {2, 64, 40, 41}, {2, 64, 40, 41});
  check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
  check_nan_shows(loss, {1, 3, 4, 5});
  check_refusals(loss);
}

TEST_CASE("ka_autoencoder_loss: a code of zero gets no gradient, NaN in it shows") {
  const Tensor e = Tensor::zeros({2, 2, 4, 5});
  e.view().at<float>(0, 0, 0, 1) = 2;
  e.view().at<float>(0, 0, 0, 2) = -2;
  e.set_requires_grad(true);
  const Tensor map = oracle_teacher().copy_as(DType::kF32);
  ka_autoencoder_loss(map, e, map, {.alpha = 1}).backward();
  const TensorView g = e.grad().view();
  CHECK(g.at<float>(0, 0, 0, 0) == 0.0F);
  CHECK(g.at<float>(0, 0, 0, 1) == 0.5F);
  CHECK(g.at<float>(0, 0, 0, 2) == -0.5F);
  const Tensor bad = Tensor::full({2, 2, 4, 5}, std::nan(""));
  CHECK(std::isnan(ka_autoencoder_loss(map, bad, map).item()));
}

TEST_CASE("ka_autoencoder_loss: errors name the numbers") {
  const Tensor map = Tensor::zeros({2, 3, 4, 5});
  CHECK(contains(message_of([&] {
                   return ka_autoencoder_loss(map, Tensor::zeros({3, 2, 4, 5}), map);
                 }),
                 "code of shape [3, 2, 4, 5] for a map of shape [2, 3, 4, 5]"));
  CHECK(contains(message_of([&] { return ka_autoencoder_loss(map, map, map, {.alpha = -1}); }), "alpha = -1"));
  CHECK(contains(message_of([&] {
                   return ka_autoencoder_loss(map, map, Tensor::zeros({2, 3, 4, 6}));
                 }),
                 "map of shape [2, 3, 4, 6], expected equal"));
}
