// Inter-class similarity: oracles of all modes, the teacher's matrix, the combined objective of the paper, agreement
// with generic ops, invariants, error messages.
#include <doctest/doctest.h>

#include "distill/inter_class_kd.h"
#include "distill/pixel_kd.h"
#include "distill/weight_schedule.h"
#include "ops/copy.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using namespace limbeck::distill;

namespace {

constexpr IcsdMode kModes[] = {IcsdMode::kPaperNorm, IcsdMode::kRowNorm,   IcsdMode::kPaperRaw,
                               IcsdMode::kImageRaw,  IcsdMode::kImageNorm, IcsdMode::kOfficialCode};

Tensor squares(const Tensor& a, const Tensor& b) { return ops::square(ops::sub(a, b)); }

/// K_n of every image [N,C,C] by generic ops: the row sums of p l minus p l^T.
Tensor matrices(const Tensor& x) {
  const Tensor l = ops::reshape(ops::log_softmax(x, ops::SoftmaxAxis::kSpatial), {x.size(0), x.size(1), -1});
  const Tensor p = ops::exp(l);
  return ops::sub(ops::sum(ops::mul(p, l), {2}, true), ops::matmul(p, l, false, true));
}
Tensor batch_mean(const Tensor& k) { return ops::mean(k, {0}); }
Tensor normalised(const Tensor& k) { return ops::div(k, ops::sqrt(ops::sum(ops::square(k), {k.ndim() - 1}, true))); }

}  // namespace

TEST_CASE("icsd: oracles of all modes") {
  const auto row = [](IcsdMode mode, const OracleRow& expected) {
    INFO("mode ", std::string(name_of(mode)));
    check_oracle([&](const Tensor& s) { return icsd(s, teacher_as(s), {.mode = mode}); }, expected);
  };
  row(IcsdMode::kPaperNorm, {0.00288312106256, 0.00506056829883, -0.000518991643618});
  row(IcsdMode::kRowNorm, {0.00576624212512, 0.0101211365977, -0.00103798328724});
  row(IcsdMode::kPaperRaw, {0.251324370351, 0.176507906265, 0.0205501045754});
  row(IcsdMode::kImageRaw, {0.375205173492, 0.216144237321, 0.04018338789});
  row(IcsdMode::kImageNorm, {0.0133832153532, 0.0198326003798, 0.000655135216455});
  row(IcsdMode::kOfficialCode, {0.000629404418966, 0.000934547377048, -1.18488321684e-05});
}

TEST_CASE("icsd: the teacher's similarity matrix") {
  const std::vector<double> expected{
      0, 1.2979661156, 2.7707020804, 1.1260989638, 0, 1.4644582527, 2.4633835766, 1.4958118349, 0};
  const auto exact = inter_class_similarity(oracle_teacher()).to_vector<double>();
  CHECK(gap(exact, expected) < 1e-9);
  const Tensor fast = inter_class_similarity(oracle_teacher().copy_as(DType::kF32));
  CHECK(fast.dtype() == DType::kF32);
  CHECK(gap(fast.to_vector<double>(), expected) < 1e-5);
  for (const std::int64_t i : {0, 4, 8}) CHECK(exact[static_cast<std::size_t>(i)] == 0.0);
  // Two maps of equal matrices: at another temperature they differ, and so does a large map from its reference.
  CHECK(gap(inter_class_similarity(oracle_teacher(), 2).to_vector<double>(), expected) > 0.1);
  const Tensor map = noise_map({2, 19, 40, 41}, 3, 3);
  CHECK(gap(inter_class_similarity(map).to_vector<double>(),
            inter_class_similarity(map.copy_as(DType::kF64)).to_vector<double>()) < 1e-5);
  CHECK(contains(message_of([] { return inter_class_similarity(Tensor::zeros({3, 4})); }), "[3, 4]"));
  CHECK(contains(message_of([] { return inter_class_similarity(oracle_teacher(), 0); }), "tau = 0"));
}

TEST_CASE("icsd: the objective of the paper at a quarter of the training") {
  // Epoch 1 of 4: alpha = 1/4, L = alpha (CE + 9500 ICS) + (1 - alpha) 10 KD.
  const auto ics = WeightSchedule::epochs(0, 9500);
  const auto ce = WeightSchedule::epochs(0, 1);
  const auto kd = WeightSchedule::epochs(10, 0);
  const std::int64_t step = 13;  // ten steps per epoch
  check_oracle(
      [&](const Tensor& s) {
        const Tensor t = teacher_as(s);
        const Tensor labelled = ops::mul_scalar(ops::cross_entropy(s, oracle_labels()), ce.at(step, 40, 10));
        const Tensor classes = ops::mul_scalar(icsd(s, t), ics.at(step, 40, 10));
        const Tensor pixels =
            ops::mul_scalar(pixel_kd(s, t, {.reduction = PixelKdReduction::kMeanAll}), kd.at(step, 40, 10));
        return ops::add(ops::add(labelled, classes), pixels);
      },
      {9.76388195979, 11.9531037641, -1.28467827394});
}

TEST_CASE("icsd: value and gradient of the composite of generic ops, in f64") {
  const Tensor t = oracle_teacher();
  const auto check = [&](IcsdMode mode, const std::function<Tensor(const Tensor&)>& composite) {
    INFO("mode ", std::string(name_of(mode)));
    check_composite([&](const Tensor& s) { return icsd(s, t, {.mode = mode}); }, composite);
  };
  check(IcsdMode::kPaperRaw,
        [&](const Tensor& s) { return ops::mean(squares(batch_mean(matrices(s)), batch_mean(matrices(t)))); });
  check(IcsdMode::kPaperNorm, [&](const Tensor& s) {
    const Tensor d = squares(normalised(batch_mean(matrices(s))), normalised(batch_mean(matrices(t))));
    return ops::mul_scalar(ops::mean(d), 0.5);
  });
  check(IcsdMode::kImageNorm,
        [&](const Tensor& s) { return ops::mean(squares(normalised(matrices(s)), normalised(matrices(t)))); });
}

TEST_CASE("icsd: the promises of every loss") {
  for (const IcsdMode mode : kModes) {
    INFO("mode ", std::string(name_of(mode)));
    const PairLoss loss = [&](const Tensor& s, const Tensor& t) { return icsd(s, t, {.mode = mode}); };
    check_zero_for_equal_maps(loss, {2, 19, 23, 25});
    check_zero_for_equal_maps(loss, {2, 5, 1, 1});
    check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14}, 1e-3, 1e-6);
    check_threads(loss, {2, 19, 60, 61}, {2, 19, 60, 61});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_refusals(loss);
  }
  CHECK(contains(message_of([] { return icsd(oracle_student(), oracle_teacher(), {.tau = -1}); }), "tau = -1"));
  CHECK(contains(message_of<ConfigError>([] { return parse_icsd_mode("paper"); }), "official_code"));
}

TEST_CASE("icsd: a shift of the scores of a class changes nothing, even by 1e4") {
  const Tensor s = noise_map({1, 5, 40, 40}, 3, 2);
  const Tensor t = noise_map({1, 5, 40, 40}, 4, 2);
  const double plain = icsd(s, t).item();
  CHECK(icsd(ops::add_scalar(s, 64), t).item() == doctest::Approx(plain).epsilon(1e-4));
  CHECK(icsd(ops::add_scalar(s, 1e4), ops::add_scalar(t, -1e4)).item() == doctest::Approx(plain).epsilon(1e-2));
}

TEST_CASE("icsd: a student that sees all classes everywhere alike gets no gradient") {
  const auto r = differentiate(
      [](const Tensor& s) {
        return icsd(s, noise_map({2, 5, 9, 9}, 1, 2));
      },
      Tensor::zeros({2, 5, 9, 9}));
  CHECK(r.loss > 0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
}
