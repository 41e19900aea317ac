// Channel-wise distillation: oracles, agreement with generic ops, invariants, error messages.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "distill/channel_kd.h"
#include "distill/loss.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::channel_kd;
using distill::ChannelKdNorm;
using distill::ChannelKdOptions;

TEST_CASE("channel_kd: oracles") {
  const auto row = [](double tau, bool cross_entropy_form, const OracleRow& expected) {
    CAPTURE(tau);
    check_oracle(
        [&](const Tensor& s) {
          return channel_kd(s, oracle_teacher().copy_as(s.dtype()),
                            {.tau = tau, .cross_entropy_form = cross_entropy_form});
        },
        expected);
  };
  row(1, false, {1.36224746033, 0.13768180905, -0.0128237776213});
  row(2, false, {1.66326551454, 0.161352706619, -0.0146176112606});
  row(4, false, {1.78011730843, 0.170490923209, -0.014224086308});
  row(4, true, {48.8313959991, 0.170490923209, -0.014224086308});
}

TEST_CASE("channel_kd: the other norms of the released code are other losses") {
  const auto row = [](const ChannelKdOptions& options, const OracleRow& expected) {
    CAPTURE(distill::name_of(options.norm));
    check_oracle([&](const Tensor& s) { return channel_kd(s, oracle_teacher().copy_as(s.dtype()), options); },
                 expected);
  };
  row({.tau = 1, .norm = ChannelKdNorm::kSpatial}, {1.01505724441, 0.124111801286, -0.0179747890561});
  row({.tau = 4, .norm = ChannelKdNorm::kSpatial}, {1.38433455337, 0.153441921447, -0.0206201501529});
  // Three times the mean squared error: three channels. A loss over the first image alone would have no gradient in the second.
  row({.tau = 4, .norm = ChannelKdNorm::kNone}, {3 * 4.01780944951, 3 * 0.365960355299, 3 * -0.00805458560537});
  const auto mean = [](const Tensor& x) { return ops::mul_scalar(ops::sum(x, {2, 3}, true), 1.0 / 20); };
  check_composite(
      [](const Tensor& s) { return channel_kd(s, oracle_teacher(), {.norm = ChannelKdNorm::kChannelMean}); },
      [&](const Tensor& s) {
        return ops::mul_scalar(ops::sum(ops::square(ops::sub(mean(s), mean(oracle_teacher())))), 1.0 / 6);
      });
}

TEST_CASE("channel_kd: another number of channels to divide by scales value and gradient") {
  const auto row = [](bool cross_entropy_form, const OracleRow& expected) {
    check_oracle(
        [&](const Tensor& s) {
          return channel_kd(s, oracle_teacher().copy_as(s.dtype()),
                            {.cross_entropy_form = cross_entropy_form, .divide_by_channels = 2});
        },
        expected);
  };
  row(false, {1.5 * 1.78011730843, 1.5 * 0.170490923209, 1.5 * -0.014224086308});
  row(true, {1.5 * 48.8313959991, 1.5 * 0.170490923209, 1.5 * -0.014224086308});
}

TEST_CASE("channel_kd: as a term of a configuration") {
  const auto term = [](const std::string& text) { return distill::make_loss(Config::parse(text, "test")); };
  const Tensor s = noise_map({2, 4, 5, 6}, 1, 2);
  const Tensor t = noise_map({2, 6, 5, 6}, 2, 2);
  distill::LossContext context;
  context.student = {"features", 4, 8};
  context.teacher = {"features", 6, 8};
  // Both adapters, from the same seed: the value of the student's divisor is that of the teacher's times 6 / 4.
  for (const char* adapter : {"cwd", "conv"}) {
    const auto own = term(fmt::format("{{loss: channel_kd, adapter: {}}}", adapter));
    const auto other = term(fmt::format("{{loss: channel_kd, adapter: {}, divide_by: student}}", adapter));
    own->connect(context);
    other->connect(context);
    CHECK(other->forward(s, t, {}).item() == doctest::Approx(1.5 * own->forward(s, t, {}).item()).epsilon(1e-6));
    CHECK(own->named_parameters().size() ==
          (std::string_view(adapter) == "cwd" ? 3 : 2));  // weight and gamma, beta; weight, bias
  }
  CHECK(term("{loss: channel_kd}")->describe() == "channel_kd tau=4 (sum/(N*C) * tau^2)");
  CHECK(term("{loss: channel_kd, adapter: conv, divide_by: student}")->describe() ==
        "channel_kd tau=4 (sum/(N*student's C) * tau^2) adapter=conv1x1");
  CHECK(term("{loss: channel_kd, norm: spatial, tau: 2}")->forward(s, noise_map({2, 4, 5, 6}, 3, 2), {}).item() ==
        channel_kd(s, noise_map({2, 4, 5, 6}, 3, 2), {.tau = 2, .norm = ChannelKdNorm::kSpatial}).item());
  const auto refused = [&](const std::string& text) { return message_of([&] { return term(text); }); };
  CHECK(contains(refused("{loss: channel_kd, norm: none, cross_entropy_form: true}"), "only norm channel"));
  CHECK(contains(refused("{loss: channel_kd, norm: spatial, adapter: conv, divide_by: student}"), "only norm channel"));
  CHECK(contains(refused("{loss: channel_kd, divide_by: student}"), "without an adapter"));
  CHECK(contains(refused("{loss: channel_kd, norm: position}"), "channel_mean"));
}

TEST_CASE("channel_kd: value and gradient of the composite of generic ops, in f64") {
  constexpr auto kSpatial = ops::SoftmaxAxis::kSpatial;
  const double tau = 3;
  const Tensor t = oracle_teacher();
  check_composite([&](const Tensor& s) { return channel_kd(s, t, {.tau = tau}); },
                  [&](const Tensor& s) {
                    const Tensor ln_s = ops::log_softmax(ops::mul_scalar(s, 1 / tau), kSpatial);
                    const Tensor ln_t = ops::log_softmax(ops::mul_scalar(t, 1 / tau), kSpatial);
                    return ops::mul_scalar(ops::sum(ops::mul(ops::exp(ln_t), ops::sub(ln_t, ln_s))), tau * tau / 6);
                  });
}

TEST_CASE("channel_kd: many chunks agree with the reference") {
  const Tensor s = noise_map({2, 19, 96, 130}, 1, 3);  // 8 chunks per image, the last one short
  const Tensor t = noise_map({2, 19, 96, 130}, 2, 3);
  const auto loss = [&](const Tensor& x) { return channel_kd(x, t.copy_as(x.dtype())); };
  const auto fast = differentiate(loss, s);
  const auto exact = differentiate(loss, s.copy_as(DType::kF64));
  CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(1e-5));
  CHECK(gap(fast.gradient, exact.gradient) < 1e-5);
}

TEST_CASE("channel_kd: the promises of every loss") {
  const PairLoss loss = [](const Tensor& s, const Tensor& t) { return channel_kd(s, t); };
  check_zero_for_equal_maps(loss, {2, 19, 45, 47});
  check_threads(loss, {2, 19, 96, 130}, {2, 19, 96, 130});
  check_mixed_types(loss, {2, 3, 4, 5}, {2, 3, 4, 5}, 1e-5);
  check_nan_shows(loss, {2, 3, 4, 5});
  check_refusals(loss);
}

TEST_CASE("channel_kd: the cross-entropy form of equal maps gives tau^2 times the mean entropy, and no gradient") {
  const Tensor map = noise_map({2, 19, 45, 47}, 7, 3);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Tensor t = map.copy_as(type);
    const auto e =
        differentiate([&](const Tensor& s) { return channel_kd(s, t, {.tau = 4, .cross_entropy_form = true}); }, t);
    const Tensor ln_p = ops::log_softmax(ops::mul_scalar(t.copy_as(DType::kF64), 0.25), ops::SoftmaxAxis::kSpatial);
    const double entropy = -ops::sum(ops::mul(ops::exp(ln_p), ln_p)).item() / (2 * 19);
    CHECK(e.loss == doctest::Approx(16 * entropy).epsilon(1e-5));
    CHECK(largest_magnitude(e.gradient) == 0.0);
  }
}

TEST_CASE("channel_kd: unchanged by a shift of whole maps, even by 1e4") {
  const Tensor s = noise_map({1, 5, 40, 40}, 3, 2);
  const Tensor t = noise_map({1, 5, 40, 40}, 4, 2);
  const double plain = channel_kd(s, t).item();
  CHECK(channel_kd(ops::add_scalar(s, 64), t).item() == doctest::Approx(plain).epsilon(1e-4));
  CHECK(channel_kd(s, ops::add_scalar(t, -64)).item() == doctest::Approx(plain).epsilon(1e-4));
  // The shifted maps are rounded to 1e-3; a kernel that shifts late would lose all digits of a loss of this size.
  CHECK(channel_kd(ops::add_scalar(s, 1e4), ops::add_scalar(t, -1e4)).item() == doctest::Approx(plain).epsilon(1e-2));
}

TEST_CASE("channel_kd: gradients of a channel sum to zero") {
  const auto s = oracle_student();
  s.set_requires_grad(true);
  channel_kd(s, oracle_teacher()).backward();
  for (const double v : ops::sum(s.grad(), {2, 3}, false).to_vector<double>()) CHECK(std::abs(v) < 1e-15);
}

TEST_CASE("channel_kd: one position is always certain; one channel works") {
  const auto r = differentiate(
      [](const Tensor& s) {
        return channel_kd(s, noise_map({2, 19, 1, 1}, 5, 9));
      },
      noise_map({2, 19, 1, 1}, 6, 9));
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
  CHECK(channel_kd(noise_map({1, 1, 7, 7}, 5, 2), noise_map({1, 1, 7, 7}, 6, 2)).item() > 0);
}

TEST_CASE("channel_kd: finite for logits of +-1e4") {
  const Tensor s = noise_map({2, 11, 30, 30}, 8, 3000);
  const Tensor t = noise_map({2, 11, 30, 30}, 9, 3000);
  for (const double tau : {0.5, 1.0, 4.0}) {
    const auto loss = [&](const Tensor& x) { return channel_kd(x, t.copy_as(x.dtype()), {.tau = tau}); };
    const auto fast = differentiate(loss, s);
    const auto exact = differentiate(loss, s.copy_as(DType::kF64));
    CHECK(std::isfinite(fast.loss));
    CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(1e-5));
    CHECK(gap(fast.gradient, exact.gradient) < 1e-4);
  }
}

TEST_CASE("channel_kd: a position that both maps exclude contributes nothing") {
  const Tensor map = noise_map({1, 3, 7, 9}, 10, 2);
  map.view().at<float>(0, 1, 2, 3) = -std::numeric_limits<float>::infinity();
  const auto r = differentiate([&](const Tensor& s) { return channel_kd(s, map); }, map);
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
}

TEST_CASE("channel_kd: wrong arguments are named") {
  const Tensor s = Tensor::zeros({2, 3, 4, 5});
  const auto shapes = message_of([&] { return channel_kd(s, Tensor::zeros({2, 19, 4, 5})); });
  CHECK(contains(shapes, "[2, 19, 4, 5]"));
  CHECK(contains(shapes, "[2, 3, 4, 5]"));
  CHECK(contains(message_of([&] { return channel_kd(s, s, {.tau = 0}); }), "tau = 0"));
  CHECK(contains(message_of([&] { return channel_kd(s, s, {.tau = -2}); }), "tau = -2"));
  CHECK(
      contains(message_of([&] { return channel_kd(s, s, {.cross_entropy_form = true, .norm = ChannelKdNorm::kNone}); }),
               "norm none together with the cross-entropy form"));
  CHECK(
      contains(message_of([&] { return channel_kd(s, s, {.norm = ChannelKdNorm::kSpatial, .divide_by_channels = 2}); }),
               "norm spatial together with a number of channels"));
  CHECK(contains(message_of([&] { return channel_kd(Tensor::zeros({2, 3}), Tensor::zeros({2, 3})); }), "[2, 3]"));
}
