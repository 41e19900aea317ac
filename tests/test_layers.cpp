// Layers: shapes, counts and the state that ops do not have. The mathematics is tested with the ops.
#include <doctest/doctest.h>

#include <cmath>

#include "core/autocast.h"
#include "nn/layers.h"
#include "ops/reduce.h"
#include "tests/harness/random_input.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::random_input;

TEST_SUITE_BEGIN("layers");

TEST_CASE("a convolution computes the sum it should") {
  Generator g(1);
  nn::Conv2d conv({.in = 1, .out = 1, .kernel = 3, .padding = 1}, g);
  conv.weight().detach().fill_(1.0);
  conv.bias().detach().fill_(0.5);
  const Tensor y = conv(Tensor::full({1, 1, 3, 3}, 2.0));
  CHECK(y.to_vector<float>() == std::vector<float>{8.5F, 12.5F, 8.5F, 12.5F, 18.5F, 12.5F, 8.5F, 12.5F, 8.5F});
  CHECK(y.requires_grad());
}

TEST_CASE("output shapes, types and multiply-adds") {
  Generator g(1);
  nn::Conv2d conv({.in = 8, .out = 12, .kernel = 3, .stride = 2, .padding = 2, .dilation = 2, .groups = 4}, g);
  CHECK(conv.weight().shape() == Shape{12, 2, 3, 3});
  CHECK(conv.type() == "Conv2d 3x3 s2 d2 g4");
  const Tensor x = random_input({2, 8, 9, 11});
  const Tensor y = conv(x);
  CHECK(y.shape() == Shape{2, 12, 5, 6});
  CHECK(conv.macs(x.shape(), y.shape()) == 2 * 12 * 5 * 6 * 2 * 9);

  nn::ConvTranspose2d deconv({.in = 8, .out = 4, .kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}, g);
  CHECK(deconv.weight().shape() == Shape{8, 4, 3, 3});
  const Tensor z = deconv(x);
  CHECK(z.shape() == Shape{2, 4, 18, 22});
  CHECK(deconv.macs(x.shape(), z.shape()) == 2 * 8 * 9 * 11 * 4 * 9);

  nn::Linear linear({.in = 6, .out = 5}, g);
  CHECK(linear(random_input({3, 6})).shape() == Shape{3, 5});
  CHECK(linear.macs({3, 6}, {3, 5}) == 90);

  nn::MaxPool2d max({.kernel = 3, .stride = 2, .padding = 1});
  CHECK(max(random_input({1, 2, 257, 129})).shape() == Shape{1, 2, 129, 65});
  nn::MaxPool2d ceil({.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true});
  CHECK(ceil(random_input({1, 1, 256, 256})).shape() == Shape{1, 1, 129, 129});
  CHECK(max(random_input({1, 1, 256, 256})).shape() == Shape{1, 1, 128, 128});
  nn::AvgPool2d avg({.kernel = 2});
  CHECK(avg(Tensor::full({1, 1, 4, 6}, 3.0)).to_vector<float>() == std::vector<float>(6, 3.0F));
  nn::Upsample up({.scale = 2});
  CHECK(up(random_input({1, 2, 3, 4})).shape() == Shape{1, 2, 6, 8});
  nn::Upsample sized({.size = {5, 7}, .bilinear = false});
  CHECK(sized(random_input({1, 2, 3, 4})).shape() == Shape{1, 2, 5, 7});
}

TEST_CASE("activations") {
  const Tensor x = Tensor::from(std::vector<float>{-2, 0, 3, 9}, {4});
  CHECK(nn::ReLU()(x).to_vector<float>() == std::vector<float>{0, 0, 3, 9});
  CHECK(nn::ReLU6()(x).to_vector<float>() == std::vector<float>{0, 0, 3, 6});
  CHECK(nn::LeakyReLU(0.5)(x).to_vector<float>() == std::vector<float>{-1, 0, 3, 9});
  CHECK(nn::Identity()(x).to_vector<float>() == x.to_vector<float>());
}

TEST_CASE("batch norm keeps running statistics and counts batches while training") {
  nn::BatchNorm2d bn(2, {.eps = 1e-3, .momentum = 0.25});
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 6, 10, 10, 10, 14}, {1, 2, 2, 2});
  const Tensor y = bn(x);
  // Channel 0: mean 3, biased variance 3.5, unbiased 14/3. Channel 1: mean 11, 3 and 4.
  CHECK(bn.running_mean().to_vector<double>()[0] == doctest::Approx(0.25 * 3));
  CHECK(bn.running_mean().to_vector<double>()[1] == doctest::Approx(0.25 * 11));
  CHECK(bn.running_var().to_vector<double>()[0] == doctest::Approx(0.75 + 0.25 * 14.0 / 3));
  CHECK(bn.running_var().to_vector<double>()[1] == doctest::Approx(0.75 + 0.25 * 4));
  CHECK(y.to_vector<double>()[0] == doctest::Approx(-2 / std::sqrt(3.5 + 1e-3)).epsilon(1e-5));
  CHECK(bn.state_dict().at("num_batches_tracked").item() == 1);
  bn.eval();
  static_cast<void>(bn(x));
  CHECK(bn.state_dict().at("num_batches_tracked").item() == 1);
  CHECK(bn.running_mean().to_vector<double>()[0] == doctest::Approx(0.75));
}

TEST_CASE("batch norm refuses to train on a single value per channel and says what to do") {
  nn::BatchNorm2d bn(4);
  check_throws<Error>(
      [&] {
        static_cast<void>(bn(random_input({1, 4, 1, 1})));
      },
      {"[1, 4, 1, 1]", "at least 2", "ASPP"});
  CHECK(bn.state_dict().at("num_batches_tracked").item() == 0);
  CHECK(bn(random_input({2, 4, 1, 1})).shape() == Shape{2, 4, 1, 1});
  bn.eval();
  CHECK(bn(random_input({1, 4, 1, 1})).shape() == Shape{1, 4, 1, 1});
}

TEST_CASE("dropout draws from the generator in scope, and does nothing in eval mode") {
  nn::Dropout dropout(0.25);
  const Tensor x = Tensor::full({1, 16, 50, 50}, 1.0);
  Generator a(5, 2);
  Generator b(5, 2);
  Tensor first;
  Tensor second;
  {
    const nn::GeneratorScope scope(a);
    first = dropout(x);
    second = dropout(x);
  }
  CHECK(first.to_vector<float>() != second.to_vector<float>());
  CHECK(a.offset() > 0);
  {
    const nn::GeneratorScope scope(b);
    CHECK(dropout(x).to_vector<float>() == first.to_vector<float>());
  }
  std::size_t zeros = 0;
  for (const float v : first.to_vector<float>()) {
    if (v == 0.0F) {
      ++zeros;
    } else {
      CHECK(v == doctest::Approx(1.0 / 0.75));
    }
  }
  CHECK(static_cast<double>(zeros) / 40000.0 == doctest::Approx(0.25).epsilon(0.05));
  dropout.eval();
  CHECK(dropout(x).impl() == x.impl());

  nn::Dropout2d channels(0.5);
  const nn::GeneratorScope scope(b);
  const auto v = channels(x).to_vector<float>();
  std::size_t kept = 0;
  for (std::size_t c = 0; c < 16; ++c) {
    for (std::size_t i = 1; i < 2500; ++i)
      REQUIRE(v[c * 2500 + i] == v[c * 2500]);  // a channel lives or dies as a whole
    kept += v[c * 2500] != 0.0F ? 1U : 0U;
  }
  CHECK(kept > 0);
  CHECK(kept < 16);
}

TEST_CASE("a Sequential runs in order and names its children by number") {
  Generator g(1);
  nn::Sequential net;
  net.add<nn::Conv2d>(nn::ConvArgs{.in = 3, .out = 4, .kernel = 3}, g);
  net.add<nn::ReLU>();
  net.add_named<nn::Conv2d>("head", nn::ConvArgs{.in = 4, .out = 2}, g);
  CHECK(net.size() == 3);
  CHECK(net.named_parameters()[2].name == "head.weight");
  const Tensor x = random_input({1, 3, 6, 6});
  const Tensor expected = net[2](net[1](net[0](x)));
  CHECK(net(x).to_vector<float>() == expected.to_vector<float>());
}

TEST_CASE("errors carry the layer's path") {
  Generator g(1);
  nn::Sequential net;
  net.add<nn::BatchNorm2d>(3);
  check_throws<Error>([&] { static_cast<void>(net(random_input({1, 3, 1, 1}))); }, {"in 0 has a single value"});
}

TEST_CASE("impossible sizes are refused at construction") {
  Generator g(1);
  check_throws<Error>([&] { nn::Conv2d({.in = 0, .out = 4}, g); }, {"[conv2d]", "0 -> 4"});
  check_throws<Error>([&] { nn::Conv2d({.in = 6, .out = 4, .groups = 4}, g); }, {"4 groups", "6 input"});
  check_throws<Error>([&] { nn::Linear({.in = 3, .out = -1}, g); }, {"[linear]"});
  check_throws<Error>([] { const nn::Dropout d(1.0); }, {"probability 1"});
  check_throws<Error>([] { const nn::BatchNorm2d b(3, {.eps = 0.0}); }, {"eps 0"});
}

TEST_SUITE_END();
