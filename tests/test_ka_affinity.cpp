// The affinity loss: oracles, agreement with generic ops, invariants, error messages.
// The oracle rows are printed by tests/golden/ka_losses.py.
#include <doctest/doctest.h>

#include "distill/ka_affinity.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::ka_affinity;
using distill::KaAffinityReduce;

namespace {

constexpr std::array kForms{KaAffinityReduce::kMeanSquare, KaAffinityReduce::kRowNorm, KaAffinityReduce::kTdl};

PairLoss loss_of(KaAffinityReduce reduce) {
  return [reduce](const Tensor& s, const Tensor& t) { return ka_affinity(s, t, {.reduce = reduce}); };
}

Tensor normalised(const Tensor& x, std::int64_t dim) {
  return ops::div(x, ops::add_scalar(ops::sqrt(ops::sum(ops::square(x), {dim}, true)), 1e-12));
}

/// Differences of the cosines, [N,M,M].
Tensor differences(const Tensor& s, const Tensor& t) {
  const auto affinity = [](const Tensor& x) {
    const Tensor f = normalised(ops::reshape(x, {x.size(0), x.size(1), -1}), 1);
    return ops::matmul(ops::permute(f, {0, 2, 1}), f);
  };
  return ops::sub(affinity(s), affinity(t));
}

/// One norm per image and channel, [N C].
Tensor channel_norms(const Tensor& s, const Tensor& t) {
  const auto squares = [](const Tensor& x) {
    const std::int64_t m = x.size(2) * x.size(3);
    const Tensor a = normalised(ops::reshape(x, {x.size(0) * x.size(1), m}), 1);
    return ops::matmul(ops::reshape(a, {-1, m, 1}), ops::reshape(a, {-1, 1, m}));
  };
  return ops::sqrt(ops::sum(ops::square(ops::sub(squares(s), squares(t))), {1, 2}));
}

Tensor composite(const Tensor& s, const Tensor& t, KaAffinityReduce reduce) {
  const auto m = static_cast<double>(s.size(2) * s.size(3));
  switch (reduce) {
    case KaAffinityReduce::kMeanSquare: return ops::mean(ops::square(differences(s, t)));
    case KaAffinityReduce::kRowNorm: return ops::mean(ops::sqrt(ops::sum(ops::square(differences(s, t)), {2})));
    case KaAffinityReduce::kTdl:
      return ops::mul_scalar(ops::sum(channel_norms(s, t)), 1 / (static_cast<double>(s.size(0)) * m));
  }
  return {};
}

}  // namespace

TEST_CASE("ka_affinity: oracles") {
  const auto row = [](KaAffinityReduce reduce, const OracleRow& expected) {
    INFO(std::string(name_of(reduce)));
    check_oracle([&](const Tensor& s) { return loss_of(reduce)(s, oracle_teacher().copy_as(s.dtype())); }, expected);
  };
  row(KaAffinityReduce::kMeanSquare, {0.536023923199, 0.0638994858185, -0.0075703180579});
  row(KaAffinityReduce::kRowNorm, {3.1609926403, 0.199228461659, -0.0244847821864});
  row(KaAffinityReduce::kTdl, {0.180205203742, 0.006821006166, -0.000359853620589});
}

TEST_CASE("ka_affinity: value and gradient of the composite of generic ops, in f64") {
  for (const KaAffinityReduce reduce : kForms) {
    INFO(std::string(name_of(reduce)));
    const auto check = [&](const Tensor& student, const Tensor& t) {
      check_composite([&](const Tensor& s) { return loss_of(reduce)(s, t); },
                      [&](const Tensor& s) { return composite(s, t, reduce); }, student);
    };
    check(oracle_student(), oracle_teacher());
    if (reduce == KaAffinityReduce::kTdl) continue;
    check(wave_map(0.41, 0.3, 1.5, 0.2, {2, 2, 4, 5}), wave_map(0.19, 0.7, 1.2, 0.1, {2, 4, 4, 5}));
    check(wave_map(0.41, 0.3, 1.5, 0.2, {2, 9, 2, 3}), wave_map(0.19, 0.7, 1.2, 0.1, {2, 7, 2, 3}));
  }
}

TEST_CASE("ka_affinity: the promises of every loss") {
  for (const KaAffinityReduce reduce : kForms) {
    INFO(std::string(name_of(reduce)));
    const PairLoss loss = loss_of(reduce);
    const std::int64_t other = reduce == KaAffinityReduce::kTdl ? 11 : 7;
    for (const Shape& shape : {Shape{2, 19, 13, 11}, Shape{2, 40, 20, 21}, Shape{2, 37, 4, 5}, Shape{2, 5, 1, 1}}) {
      check_zero_for_equal_maps(loss, shape);
    }
    check_large_numbers(loss, {2, 11, 15, 14}, {2, other, 15, 14});
    check_large_numbers(loss, {2, 11, 3, 3}, {2, other, 3, 3});
    check_threads(loss, {2, 64, 24, 25}, {2, 64, 24, 25});
    check_threads(loss, {2, 64, 6, 7}, {2, 64, 6, 7});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, other, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_nan_shows(loss, {1, 30, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("ka_affinity: both ways of computing agree with the reference") {
  for (const KaAffinityReduce reduce : {KaAffinityReduce::kMeanSquare, KaAffinityReduce::kRowNorm}) {
    for (const auto& [c, d, h, w] :
         {std::array{48, 80, 18, 20}, std::array{80, 20, 18, 20}, std::array{300, 80, 9, 11}}) {
      CAPTURE(c);
      const Tensor s = noise_map({1, c, h, w}, 1, 2);
      const Tensor t = noise_map({1, d, h, w}, 2, 2);
      const auto loss = [&](const Tensor& x) { return loss_of(reduce)(x, t.copy_as(x.dtype())); };
      const auto fast = differentiate(loss, s);
      const auto exact = differentiate(loss, s.copy_as(DType::kF64));
      CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(1e-5));
      CHECK(gap(fast.gradient, exact.gradient) < 1e-5);
    }
  }
}

// Features behind a ReLU all point into one half of the space, so that affinities are close to each other and their
// differences small; and a student that has learned well is close to its teacher.
TEST_CASE("ka_affinity: small differences of large affinities keep their digits") {
  const Tensor t = ops::add_scalar(noise_map({1, 48, 18, 20}, 1, 0.5), 2);
  for (const KaAffinityReduce reduce : kForms) {
    INFO(std::string(name_of(reduce)));
    for (const double distance : {1.0, 1e-2, 1e-4}) {
      CAPTURE(distance);
      const Tensor s = ops::add(t, noise_map({1, 48, 18, 20}, 2, 0.5 * distance));
      const auto loss = [&](const Tensor& x) { return loss_of(reduce)(x, t.copy_as(x.dtype())); };
      const auto fast = differentiate(loss, s);
      const auto exact = differentiate(loss, s.copy_as(DType::kF64));
      const double tolerance = reduce == KaAffinityReduce::kTdl && distance < 1e-3 ? 1e-3 : 1e-5;
      CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(tolerance));
      CHECK(gap(fast.gradient, exact.gradient) < tolerance);
    }
  }
}

TEST_CASE("ka_affinity: the length of the vectors and a turn of their space do not matter") {
  const Tensor s = oracle_student();
  const Tensor t = oracle_teacher();
  for (const KaAffinityReduce reduce : kForms) {
    const double plain = loss_of(reduce)(s, t).item();
    CHECK(loss_of(reduce)(ops::mul_scalar(s, 1000), t).item() == doctest::Approx(plain).epsilon(1e-10));
    CHECK(loss_of(reduce)(ops::neg(s), t).item() == doctest::Approx(plain).epsilon(1e-10));
  }
  CHECK(ka_affinity(ops::neg(t), t).item() == doctest::Approx(0.0));
  // One position is only like itself.
  CHECK(ka_affinity(noise_map({2, 5, 1, 1}, 1, 1), noise_map({2, 3, 1, 1}, 2, 1)).item() == doctest::Approx(0.0));
}

TEST_CASE("ka_affinity: one channel has no direction to turn to; the sign of its affinities remains") {
  std::vector<float> values;
  for (int i = 0; i < 60; ++i) values.push_back(static_cast<float>((i % 7 < 3 ? -1 : 1) * (1 + 0.1 * i)));
  const Tensor s = Tensor::from(values, {2, 1, 5, 6});
  const Tensor t = noise_map({2, 3, 5, 6}, 2, 1);
  for (const KaAffinityReduce reduce : {KaAffinityReduce::kMeanSquare, KaAffinityReduce::kRowNorm}) {
    const auto loss = [&](const Tensor& x) { return loss_of(reduce)(x, t.copy_as(x.dtype())); };
    const auto fast = differentiate(loss, s);
    CHECK(fast.loss == doctest::Approx(loss(s.copy_as(DType::kF64)).item()).epsilon(1e-6));
    CHECK(largest_magnitude(fast.gradient) < 1e-6);
    CHECK(largest_magnitude(differentiate(loss, s.copy_as(DType::kF64)).gradient) < 1e-12);
  }
}

TEST_CASE("ka_affinity: vectors of zero give numbers and get no gradient") {
  const Tensor t = noise_map({1, 3, 4, 4}, 2, 1);
  for (const KaAffinityReduce reduce : kForms) {
    INFO(std::string(name_of(reduce)));
    Tensor s = noise_map({1, 3, 4, 4}, 1, 1);
    for (std::int64_t c = 0; c < 3; ++c) s.view().at<float>(0, c, 1, 2) = 0;
    for (std::int64_t i = 0; i < 16; ++i)
      s.view().at<float>(0, 1, i / 4, i % 4) *= reduce == KaAffinityReduce::kTdl ? 0 : 1;
    s.set_requires_grad(true);
    loss_of(reduce)(s, t).backward();
    const TensorView g = s.grad().view();
    CHECK((reduce == KaAffinityReduce::kTdl ? g.at<float>(0, 1, 2, 2) : g.at<float>(0, 1, 1, 2)) == 0.0F);
    CHECK(g.at<float>(0, 0, 1, 3) != 0.0F);
    const auto zero =
        differentiate([&](const Tensor& x) { return loss_of(reduce)(x, t); }, Tensor::zeros({1, 3, 4, 4}));
    CHECK(zero.loss > 0);
    CHECK(largest_magnitude(zero.gradient) == 0.0);
    CHECK(std::isfinite(loss_of(reduce)(t, Tensor::zeros({1, 3, 4, 4})).item()));
  }
}

TEST_CASE("ka_affinity: errors name the numbers") {
  CHECK(contains(message_of([&] {
                   return loss_of(KaAffinityReduce::kTdl)(Tensor::zeros({1, 3, 4, 5}), Tensor::zeros({1, 4, 4, 5}));
                 }),
                 "student with 3 channels, teacher with 4"));
}
