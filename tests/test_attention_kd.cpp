// Attention transfer and PSD: oracles, agreement with generic ops, invariants, error messages.
// The oracle rows are printed by tests/golden/baseline_losses.py.
#include <doctest/doctest.h>

#include <array>
#include <vector>

#include "distill/attention_kd.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::attention_kd;
using distill::AttentionForm;
using distill::psd_kd;

namespace {

constexpr std::array kForms{AttentionForm::kMeanSquare, AttentionForm::kNorm, AttentionForm::kColumns};

PairLoss loss_of(AttentionForm form) {
  return [form](const Tensor& s, const Tensor& t) { return attention_kd(s, t, {.form = form}); };
}

/// The formula in generic ops: normalised over `dims` of [N,H,W].
Tensor attention(const Tensor& x, const Shape& dims) {
  const Tensor q = ops::mean(ops::square(x), {1});
  return ops::div(q, ops::sqrt(ops::sum(ops::square(q), dims, true)));
}

PairLoss psd_of_two() {
  return [](const Tensor& s, const Tensor& t) {
    const std::array students{s, ops::add_scalar(s, 0.5)};
    const std::array teachers{t, ops::add_scalar(t, 0.5)};
    return psd_kd(students, teachers);
  };
}

}  // namespace

TEST_CASE("attention_kd: oracles") {
  const auto row = [](AttentionForm form, const OracleRow& expected) {
    check_oracle([&](const Tensor& s) { return attention_kd(s, oracle_teacher().copy_as(s.dtype()), {.form = form}); },
                 expected);
  };
  row(AttentionForm::kMeanSquare, {0.01296643152916, 0.005394139240455, 3.833238735486e-05});
  row(AttentionForm::kNorm, {0.4762047446185, 0.1145400667421, 0.0005837636984649});
  row(AttentionForm::kColumns, {0.06336850957201, 0.02638879212146, 1.919361507333e-05});
}

TEST_CASE("attention_kd: value and gradient of the composite of generic ops, in f64") {
  const Tensor t = oracle_teacher();
  const auto fused = [&](AttentionForm form) {
    return [&, form](const Tensor& s) { return attention_kd(s, t, {.form = form}); };
  };
  check_composite(fused(AttentionForm::kMeanSquare), [&](const Tensor& s) {
    return ops::mean(ops::square(ops::sub(attention(s, {1, 2}), attention(t, {1, 2}))));
  });
  check_composite(fused(AttentionForm::kColumns), [&](const Tensor& s) {
    return ops::mean(ops::square(ops::sub(attention(s, {1}), attention(t, {1}))));
  });
  check_composite(fused(AttentionForm::kNorm), [&](const Tensor& s) {
    return ops::mean(ops::sqrt(ops::sum(ops::square(ops::sub(attention(s, {1, 2}), attention(t, {1, 2}))), {1, 2})));
  });
}

TEST_CASE("attention_kd: the promises of every loss") {
  for (const AttentionForm form : kForms) {
    CAPTURE(std::string(distill::name_of(form)));
    const PairLoss loss = loss_of(form);
    check_zero_for_equal_maps(loss, {2, 19, 13, 11});
    check_zero_for_equal_maps(loss, {2, 1, 1, 1});
    check_large_numbers(loss, {2, 11, 15, 14}, {2, 7, 15, 14});
    check_threads(loss, {2, 64, 40, 41}, {2, 32, 40, 41});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, 19, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("attention_kd: invariances") {
  const Tensor s = oracle_student();
  const Tensor t = oracle_teacher();
  // The length of the map does not matter, nor does the number of channels it is spread over.
  CHECK(attention_kd(ops::mul_scalar(s, 100), t).item() == doctest::Approx(attention_kd(s, t).item()).epsilon(1e-12));
  CHECK(attention_kd(ops::neg(s), t).item() == doctest::Approx(attention_kd(s, t).item()).epsilon(1e-12));
  // One position is all the attention there is.
  CHECK(attention_kd(noise_map({2, 5, 1, 1}, 1, 1), noise_map({2, 3, 1, 1}, 2, 1)).item() == 0.0);
}

TEST_CASE("attention_kd: a silent map has no direction, but no NaN either") {
  const Tensor s = Tensor::zeros({2, 3, 4, 5});
  for (const AttentionForm form : kForms) {
    const auto r = differentiate(
        [&](const Tensor& x) {
          return attention_kd(x, noise_map({2, 3, 4, 5}, 1, 1), {.form = form});
        },
        s);
    CHECK(r.loss > 0);
    CHECK(largest_magnitude(r.gradient) == 0.0);
  }
}

TEST_CASE("attention_kd: names of the forms") {
  for (const AttentionForm form : kForms) CHECK(distill::parse_attention_form(distill::name_of(form)) == form);
  CHECK(contains(message_of<ConfigError>([] { return distill::parse_attention_form("mean"); }),
                 "mean_square, norm or columns"));
}

TEST_CASE("psd_kd: oracles") {
  const auto as = [](const Tensor& like, const Tensor& t) { return t.copy_as(like.dtype()); };
  const Tensor s2 = wave_map(0.41, 0.3, 1.5, 0.2, {2, 2, 4, 5});
  const Tensor t2 = wave_map(0.19, 0.7, 1.2, 0.1, {2, 4, 4, 5});
  const Tensor s3 = wave_map(0.31, 0.4, 1.0, 0.2, {2, 3, 4, 5});
  const Tensor t3 = ops::add_scalar(ops::mul_scalar(oracle_teacher(), 0.5), 1);
  check_oracle(
      [&](const Tensor& s) {
        const std::array students{s, as(s, s2)};
        const std::array teachers{as(s, oracle_teacher()), as(s, t2)};
        return psd_kd(students, teachers);
      },
      {0.1261632823792, 0.0236772599972, 0.001486482300906});
  check_oracle(
      [&](const Tensor& s) {
        const std::array students{s, as(s, s2), as(s, s3)};
        const std::array teachers{as(s, oracle_teacher()), as(s, t2), as(s, t3)};
        return psd_kd(students, teachers);
      },
      {0.1126130426699, 0.01102671403834, 0.0001410661988534});
}

TEST_CASE("psd_kd: every student map gets its gradient, scaled by the weight of the term") {
  const auto run = [](double weight) {
    std::vector<Tensor> students{oracle_student(), wave_map(0.41, 0.3, 1.5, 0.2, {2, 2, 4, 5})};
    const std::vector<Tensor> teachers{oracle_teacher(), wave_map(0.19, 0.7, 1.2, 0.1, {2, 4, 4, 5})};
    for (const Tensor& s : students) s.set_requires_grad(true);
    ops::mul_scalar(psd_kd(students, teachers), weight).backward();
    return students;
  };
  const auto one = run(1);
  const auto ten = run(10);
  for (std::size_t k = 0; k < 2; ++k) {
    const auto a = one[k].grad().to_vector<double>();
    CHECK(largest_magnitude(a) > 0);
    CHECK(gap(ops::mul_scalar(one[k].grad(), 10).to_vector<double>(), ten[k].grad().to_vector<double>()) < 1e-14);
  }
}

TEST_CASE("psd_kd: the promises of every loss") {
  check_zero_for_equal_maps(psd_of_two(), {2, 5, 13, 11});
  check_large_numbers(psd_of_two(), {2, 3, 5, 4}, {2, 3, 5, 4}, 1);  // maps that differ by 1e-4 of themselves: finite
  check_threads(psd_of_two(), {2, 32, 40, 41}, {2, 32, 40, 41});
  const std::array one{oracle_student()};
  CHECK(contains(message_of([&] { return psd_kd(one, one); }), "at least 2"));
  const std::array sizes{oracle_student(), Tensor::zeros({2, 3, 5, 5}, DType::kF64)};
  CHECK(contains(message_of([&] { return psd_kd(sizes, sizes); }), "[2, 3, 5, 5]"));
}
