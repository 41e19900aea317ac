// Squared distance between features: oracles, agreement with generic ops, invariants; the channel-wise transformation
// and its parameter gradients.
#include <doctest/doctest.h>

#include "distill/feature_mse.h"
#include "distill/loss.h"
#include "models/connectors.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using namespace limbeck::distill;

namespace {

constexpr FeatureMseOptions kMean{FeatureReduction::kMean};
constexpr FeatureMseOptions kSum{FeatureReduction::kSumPerImage};
constexpr FeatureMseOptions kPerPosition{FeatureReduction::kPerPosition};

double norm_of(const Tensor& t) { return std::sqrt(ops::sum(ops::square(t)).item()); }

LossContext context_of(std::int64_t student, std::int64_t teacher) {
  LossContext context;
  context.student = {"features", student, 8};
  context.teacher = {"features", teacher, 8};
  context.seed = 3;
  return context;
}

}  // namespace

TEST_CASE("feature_mse: oracles") {
  check_oracle([](const Tensor& s) { return feature_mse(s, teacher_as(s), kMean); },
               {4.01780944951, 0.365960355299, -0.00805458560537});
  check_oracle([](const Tensor& s) { return feature_mse(s, teacher_as(s), kSum); },
               {60 * 4.01780944951, 60 * 0.365960355299, 60 * -0.00805458560537});
  check_oracle([](const Tensor& s) { return feature_mse(s, teacher_as(s), kPerPosition); },
               {3 * 4.01780944951, 3 * 0.365960355299, 3 * -0.00805458560537});
  CHECK(contains(message_of([] { return feature_mse(Tensor::zeros({4}), Tensor::zeros({4}), kPerPosition); }),
                 "[4] have no positions"));
  // Of the autoencoder study: the same sum over another pair.
  const Tensor r = wave_map(0.31, 0.4, 1.0, 0.2, {2, 3, 4, 5});
  CHECK(feature_mse(r, oracle_teacher(), kMean).item() == doctest::Approx(2.35313984373).epsilon(1e-9));
  CHECK(feature_mse(r, oracle_teacher(), kSum).item() == doctest::Approx(141.188390624).epsilon(1e-9));
}

TEST_CASE("feature_mse: value and gradient of the composite of generic ops, in f64") {
  check_composite([](const Tensor& s) { return feature_mse(s, oracle_teacher(), kMean); },
                  [](const Tensor& s) { return ops::mean(ops::square(ops::sub(s, oracle_teacher()))); });
}

TEST_CASE("feature_mse: the promises of every loss") {
  for (const auto& options : {kMean, kSum, kPerPosition}) {
    const PairLoss loss = [&](const Tensor& s, const Tensor& t) { return feature_mse(s, t, options); };
    check_zero_for_equal_maps(loss, {2, 19, 23, 25});
    check_zero_for_equal_maps(loss, {2, 5, 1, 1});
    check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14});
    check_threads(loss, {2, 19, 60, 61}, {2, 19, 60, 61});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("channel_transform: oracle with the gradients of both layers") {
  const auto loss = make_loss(Config::parse("{loss: channel_transform}", "test"));
  loss->connect(context_of(2, 4));
  loss->convert_(DType::kF64);
  loss->load_state_dict({{"mlp.0.weight", wave_map(0.9, 0.2, 0.6, 0.1, {4, 2, 1, 1})},
                         {"mlp.0.bias", wave_map(0.5, 0.1, 0.2, 0, {4})},
                         {"mlp.2.weight", wave_map(0.7, 0.5, 0.5, -0.1, {4, 4, 1, 1})},
                         {"mlp.2.bias", wave_map(0.3, 0.9, 0.1, 0, {4})}});
  const Tensor s = wave_map(0.41, 0.3, 1.5, 0.2, {2, 2, 4, 5});
  const Tensor t = wave_map(0.19, 0.7, 1.2, 0.1, {2, 4, 4, 5});
  s.set_requires_grad(true);
  const Tensor value = loss->forward(s, t, {});
  value.backward();
  const auto close = [](double actual, double expected) { CHECK(actual == doctest::Approx(expected).epsilon(1e-9)); };
  close(value.item(), 78.1010106331);
  close(norm_of(s.grad()), 4.9771245696);
  close(s.grad().to_vector<double>()[0], -0.0729138184938);
  const auto parameters = loss->named_parameters();
  REQUIRE(parameters.size() == 4);
  close(norm_of(parameters[0].tensor.grad()), 27.8647689454);
  close(parameters[0].tensor.grad().to_vector<double>()[0], 2.40749747399);
  close(norm_of(parameters[1].tensor.grad()), 31.42218904);
  close(norm_of(parameters[2].tensor.grad()), 27.538619393);
  close(norm_of(parameters[3].tensor.grad()), 39.7568120681);
  const auto mean = make_loss(Config::parse("{loss: channel_transform, reduction: mean}", "test"));
  mean->connect(context_of(2, 4));
  mean->convert_(DType::kF64);
  mean->load_state_dict(loss->state_dict());
  close(mean->forward(s.detach(), t, {}).item(), 0.976262632914);
}

TEST_CASE("channel_transform: the size of the published pair") {
  const nn::ParameterDevice meta(limbeck::kMeta);
  Generator g(1);
  CHECK(models::ChannelMlp({.in = 512, .out = 2048}, g).parameter_count() == 5246976);
}
