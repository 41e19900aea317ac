// The running average of a model's weights.
#include <doctest/doctest.h>

#include "nn/ema.h"
#include "nn/layers.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;

namespace {

nn::Sequential& build(nn::Sequential& net) {
  Generator g(1);
  net.add<nn::Conv2d>(nn::ConvArgs{.in = 2, .out = 3, .kernel = 3}, g);
  net.add<nn::BatchNorm2d>(3);
  return net;
}

}  // namespace

TEST_SUITE_BEGIN("ema");

TEST_CASE("the average follows the recursion") {
  nn::Sequential net;
  build(net);
  nn::Ema ema(net, {.decay = 0.9, .ramp = false});
  const Tensor beta = net.state_dict().at("1.bias");
  double expected = 0.0;
  for (int i = 1; i <= 5; ++i) {
    beta.fill_(i);
    ema.update();
    expected = 0.9 * expected + 0.1 * i;
  }
  CHECK(ema.averages().at("1.bias").to_vector<double>()[2] == doctest::Approx(expected).epsilon(1e-6));
  CHECK(ema.updates() == 5);
}

TEST_CASE("the ramp forgets the first weights quickly") {
  nn::Sequential net;
  build(net);
  nn::Ema ema(net, {.decay = 0.999});
  CHECK(ema.decay() == doctest::Approx(0.1));
  ema.update();
  CHECK(ema.decay() == doctest::Approx(2.0 / 11));
  for (int i = 0; i < 20000; ++i) ema.update();
  CHECK(ema.decay() == 0.999);
}

TEST_CASE("integer buffers are copied") {
  nn::Sequential net;
  build(net);
  nn::Ema ema(net);
  net.state_dict().at("1.num_batches_tracked").fill_(41);
  ema.update();
  CHECK(ema.averages().at("1.num_batches_tracked").item() == 41);
}

TEST_CASE("EmaScope swaps the averages in and the model's own values back, bit for bit") {
  nn::Sequential net;
  build(net);
  nn::Ema ema(net, {.decay = 0.5, .ramp = false});
  const Tensor weight = net.state_dict().at("0.weight");
  weight.fill_(0.1);
  ema.update();
  const auto own = weight.to_vector<float>();
  const auto average = ema.averages().at("0.weight").to_vector<float>();
  CHECK(own != average);
  const auto version = weight.version();
  {
    const nn::EmaScope scope(ema);
    CHECK(weight.to_vector<float>() == average);
    CHECK(weight.version() != version);
  }
  CHECK(weight.to_vector<float>() == own);
  CHECK(ema.averages().at("0.weight").to_vector<float>() == average);
}

TEST_CASE("saved averages come back exactly, and foreign ones are refused") {
  nn::Sequential net;
  build(net);
  nn::Ema ema(net);
  net.state_dict().at("0.weight").fill_(0.3);
  ema.update();
  nn::StateDict saved;
  for (const auto& [name, tensor] : ema.state_dict()) saved.emplace(name, tensor.copy());
  nn::Sequential other;
  build(other);
  nn::Ema restored(other);
  restored.load_state_dict(saved);
  CHECK(restored.updates() == 1);
  CHECK(restored.averages().at("0.weight").to_vector<float>() == saved.at("0.weight").to_vector<float>());
  saved.erase("1.bias");
  saved["0.weight"] = Tensor::zeros({1});
  check_throws<WeightsError>([&] { restored.load_state_dict(saved); }, {"'1.bias' is missing", "'0.weight'"});
}

TEST_SUITE_END();
