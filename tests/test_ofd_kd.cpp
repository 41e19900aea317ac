// The partial distance of overhaul distillation and its margin: oracles, agreement with generic ops, invariants.
// The oracle rows are printed by tests/golden/baseline_losses.py.
#include <doctest/doctest.h>

#include "distill/ofd_kd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::ofd_kd;
using distill::ofd_margin;

namespace {

Tensor three_margins() { return Tensor::from(std::vector<double>{-0.6981659688585, -0.5837807124738, -0.6}, {3}); }
Tensor margins(std::int64_t c) { return Tensor::full({c}, -0.5); }
PairLoss with_margin() {
  return [](const Tensor& s, const Tensor& t) { return ofd_kd(s, t, margins(s.size(1))); };
}

}  // namespace

TEST_CASE("ofd_margin: expected negative response of a normal variable") {
  const Tensor m = ofd_margin(Tensor::from(std::vector<double>{1, -0.5, 0.2, 0, 0}, {5}),
                              Tensor::from(std::vector<double>{0.3, -0.4, 1.0, -2, 3}, {5}));
  const auto v = m.to_vector<double>();
  CHECK(v[0] == doctest::Approx(-0.6981659688585).epsilon(1e-6));
  CHECK(v[1] == doctest::Approx(-0.5837807124738).epsilon(1e-6));
  CHECK(v[2] == doctest::Approx(-0.6).epsilon(1e-6));  // negative once in 3.5 million: -3 s
  CHECK(v[3] == -2.0);                                 // no spread: the limits
  CHECK(v[4] == 0.0);
  // mu = 0: the mean of a half-normal variable.
  CHECK(ofd_margin(Tensor::full({1}, 2), Tensor::zeros({1})).item() ==
        doctest::Approx(-2 * std::sqrt(2 / 3.14159265358979)));
}

TEST_CASE("ofd_kd: oracle and composite") {
  check_oracle([](const Tensor& s) { return ofd_kd(s, oracle_teacher().copy_as(s.dtype()), three_margins()); },
               {199.2226367792, 19.96109399703, -0.4832751363221});
  check_composite([](const Tensor& s) { return ofd_kd(s, oracle_teacher(), three_margins()); },
                  [](const Tensor& s) {
                    const Tensor m = Tensor::from(three_margins().to_vector<double>(), {1, 3, 1, 1});
                    const Tensor u = ops::maximum(oracle_teacher(), m);
                    // The mask from plain numbers: it is not differentiated.
                    const auto sv = s.detach().to_vector<double>();
                    const auto uv = u.to_vector<double>();
                    std::vector<double> mask;
                    for (std::size_t i = 0; i < sv.size(); ++i) mask.push_back(sv[i] > uv[i] || uv[i] > 0 ? 1.0 : 0.0);
                    const Tensor d = ops::mul(ops::sub(s, u), Tensor::from(mask, s.shape()));
                    return ops::mul_scalar(ops::sum(ops::square(d)), 0.5);
                  });
}

TEST_CASE("ofd_kd: which elements count") {
  const auto value = [](double s, double t) {
    return ofd_kd(Tensor::full({1, 1, 1, 1}, s), Tensor::full({1, 1, 1, 1}, t), margins(1)).item();
  };
  CHECK(value(1.0, 3.0) == 4.0);  // the teacher is active: plain squared distance
  CHECK(value(5.0, 3.0) == 4.0);
  CHECK(value(0.25, -3.0) == 0.5625);  // the teacher is silent: down to the margin -0.5 ...
  CHECK(value(-0.5, -3.0) == 0.0);
  CHECK(value(-9.0, -3.0) == 0.0);                       // ... and no further
  CHECK(value(-0.1, -0.35) == doctest::Approx(0.0625));  // between margin and 0: its own value is the bound
  CHECK(value(-0.4, -0.35) == 0.0);
}

TEST_CASE("ofd_kd: the promises of every loss") {
  const PairLoss loss = with_margin();
  // Equal maps are exactly zero where the teacher is above the margin.
  const PairLoss low_margin = [](const Tensor& s, const Tensor& t) {
    return ofd_kd(s, t, Tensor::full({s.size(1)}, -100));
  };
  check_zero_for_equal_maps(low_margin, {2, 19, 13, 15});
  check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14});
  check_threads(loss, {2, 64, 40, 41}, {2, 64, 40, 41});
  check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
  check_nan_shows(loss, {1, 3, 4, 5});
  check_refusals(loss);
  CHECK(contains(message_of([] { return ofd_kd(oracle_student(), oracle_teacher(), margins(4)); }),
                 "margin of shape [4]"));
}
