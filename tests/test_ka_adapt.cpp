// The adaptation loss: oracles, agreement with generic ops, invariants, error messages.
// The oracle rows are printed by tests/golden/ka_losses.py.
#include <doctest/doctest.h>

#include "distill/ka_adapt.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::ka_adapt;
using distill::KaAdaptOptions;
using distill::KaReduction;
using distill::KaScope;

namespace {

/// (sum |x|^e)^(1/e) over `dims`, kept as dimensions of size 1.
Tensor norm(const Tensor& x, double e, const Shape& dims) {
  return ops::pow_scalar(ops::sum(ops::pow_scalar(ops::abs(x), e), dims, true), 1 / e);
}

/// The formula in generic ops: one distance per image or position.
Tensor distances(const Tensor& s, const Tensor& t, const KaAdaptOptions& o) {
  const Shape dims = o.scope == KaScope::kImage ? Shape{1, 2, 3} : Shape{1};
  const auto normalised = [&](const Tensor& x) { return ops::div(x, ops::add_scalar(norm(x, o.q, dims), 1e-12)); };
  return norm(ops::sub(normalised(s), normalised(t)), o.p, dims);
}

const KaAdaptOptions kForms[] = {{},
                                 {.p = 2},
                                 {.p = 3, .q = 4, .reduction = KaReduction::kSum},
                                 {.q = 1, .reduction = KaReduction::kVectorMean},
                                 {.scope = KaScope::kPixel},
                                 {.p = 2, .scope = KaScope::kPixel},
                                 {.p = 1.5, .q = 3, .scope = KaScope::kPixel}};

std::string describe(const KaAdaptOptions& o) {
  return fmt::format("p {} q {} {} {}", o.p, o.q, name_of(o.scope), name_of(o.reduction));
}

}  // namespace

TEST_CASE("ka_adapt: oracles") {
  const auto row = [](const KaAdaptOptions& options, const OracleRow& expected) {
    INFO(describe(options));
    check_oracle([&](const Tensor& s) { return ka_adapt(s, oracle_teacher().copy_as(s.dtype()), options); }, expected);
  };
  row({}, {0.149078450236, 0.00677772211141, -0.000937224139922});
  row({.scope = KaScope::kPixel}, {1.92636621656, 0.091793381367, -0.0124630013147});
  row({.p = 2, .scope = KaScope::kPixel}, {1.28146213638, 0.0480757112851, -0.00373331493359});
}

TEST_CASE("ka_adapt: value and gradient of the composite of generic ops, in f64") {
  const Tensor t = oracle_teacher();
  for (const KaAdaptOptions& options : kForms) {
    INFO(describe(options));
    check_composite([&](const Tensor& s) { return ka_adapt(s, t, options); },
                    [&](const Tensor& s) {
                      const Tensor d = distances(s, t, options);
                      if (options.reduction == KaReduction::kSum) return ops::sum(d);
                      const bool elements =
                          options.reduction == KaReduction::kMean && options.scope == KaScope::kImage && options.p == 1;
                      return elements ? ops::mul_scalar(ops::mean(d), 1.0 / (3 * 4 * 5)) : ops::mean(d);
                    });
  }
}

TEST_CASE("ka_adapt: the promises of every loss") {
  for (const KaAdaptOptions& options : kForms) {
    INFO(describe(options));
    const PairLoss loss = [&](const Tensor& s, const Tensor& t) { return ka_adapt(s, t, options); };
    check_zero_for_equal_maps(loss, {2, 19, 13, 11});
    check_zero_for_equal_maps(loss, {2, 1, 1, 1});
    check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14});
    check_threads(loss, {2, 64, 40, 41}, {2, 64, 40, 41});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("ka_adapt: the length of the vectors does not matter") {
  const Tensor s = oracle_student();
  const Tensor t = oracle_teacher();
  for (const KaAdaptOptions& options : kForms) {
    INFO(describe(options));
    const double plain = ka_adapt(s, t, options).item();
    CHECK(ka_adapt(ops::mul_scalar(s, 1000), t, options).item() == doctest::Approx(plain).epsilon(1e-10));
    CHECK(ka_adapt(s, ops::mul_scalar(t, 0.01), options).item() == doctest::Approx(plain).epsilon(1e-10));
  }
}

TEST_CASE("ka_adapt: vectors of zero give numbers, and the student's no gradient") {
  const Tensor zero = Tensor::zeros({2, 3, 4, 5});
  const Tensor t = noise_map({2, 3, 4, 5}, 1, 1);
  for (const KaAdaptOptions& options : kForms) {
    INFO(describe(options));
    const auto silent_student = differentiate([&](const Tensor& s) { return ka_adapt(s, t, options); }, zero);
    CHECK(silent_student.loss > 0);
    CHECK(std::isfinite(silent_student.loss));
    CHECK(largest_magnitude(silent_student.gradient) == 0.0);
    const auto silent_teacher = differentiate([&](const Tensor& s) { return ka_adapt(s, zero, options); }, t);
    CHECK(silent_teacher.loss > 0);
    CHECK(std::isfinite(largest_magnitude(silent_teacher.gradient)));
    CHECK(ka_adapt(zero, zero, options).item() == 0.0);
  }
}

TEST_CASE("ka_adapt: errors name the numbers") {
  const Tensor s = oracle_student();
  CHECK(contains(message_of([&] { return ka_adapt(s, s, {.p = 0.5}); }), "p = 0.5, expected"));
  CHECK(contains(message_of([&] { return ka_adapt(s, s, {.q = std::nan("")}); }), "q = nan"));
  CHECK(contains(message_of([&] { return ka_adapt(Tensor::zeros({3, 4}), Tensor::zeros({3, 4})); }), "[3, 4]"));
}
