// Spectral norm, self-attention and the discriminator built from them: what they promise. Values are compared with PyTorch
// in test_golden_modules.cpp.
#include <doctest/doctest.h>

#include <cmath>

#include "core/autocast.h"
#include "core/autograd.h"
#include "models/discriminator.h"
#include "nn/tracer.h"
#include "ops/elementwise.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_input.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::Discriminator;
using test::check_throws;
using test::random_input;

namespace {

/// The largest singular value, by many iterations in plain loops.
double largest_singular_value(const Tensor& weight) {
  const auto w = weight.to_vector<double>();
  const auto rows = static_cast<std::size_t>(weight.size(0));
  const std::size_t columns = w.size() / rows;
  std::vector<double> v(columns, 1.0);
  std::vector<double> u(rows);
  double sigma = 0;
  for (int i = 0; i < 500; ++i) {
    sigma = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      u[r] = 0;
      for (std::size_t c = 0; c < columns; ++c) u[r] += w[r * columns + c] * v[c];
    }
    double norm = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      v[c] = 0;
      for (std::size_t r = 0; r < rows; ++r) v[c] += w[r * columns + c] * u[r];
      norm += v[c] * v[c];
    }
    norm = std::sqrt(norm);
    for (double& x : v) x /= norm;
    sigma = std::sqrt(norm);
  }
  return sigma;
}

}  // namespace

TEST_SUITE_BEGIN("discriminator");

TEST_CASE("spectral norm brings the largest singular value to 1 and keeps it there in eval mode") {
  Generator g(3);
  nn::SpectralNormConv2d conv({.in = 6, .out = 8, .kernel = 3}, g);
  conv.weight().detach().copy_(random_input(conv.weight().shape(), 7));  // far from what u and v were made for
  const Tensor x = random_input({1, 6, 5, 5});
  conv.train();
  for (int i = 0; i < 200; ++i) static_cast<void>(conv(x));
  const NoGradGuard off;
  const Tensor w = nn::spectral_normalize(conv.weight(), conv.u(), conv.v(), 0);
  CHECK(largest_singular_value(w) == doctest::Approx(1.0).epsilon(1e-4));
  const auto u = conv.u().to_vector<float>();
  conv.eval();
  const Tensor a = conv(x);
  CHECK(conv.u().to_vector<float>() == u);
  CHECK(conv(x).to_vector<float>() == a.to_vector<float>());
  conv.train();
  conv.weight().detach().copy_(random_input(conv.weight().shape(), 8));
  static_cast<void>(conv(x));
  CHECK(conv.u().to_vector<float>() != u);
}

TEST_CASE("a fresh layer is already near norm 1, without training") {
  Generator g(4);
  nn::SpectralNormConv2d conv({.in = 5, .out = 16, .kernel = 4, .stride = 2, .padding = 1}, g);
  const NoGradGuard off;
  CHECK(largest_singular_value(nn::spectral_normalize(conv.weight(), conv.u(), conv.v(), 0)) ==
        doctest::Approx(1.0).epsilon(0.1));
}

TEST_CASE("two passes before one backward: each keeps its own singular vectors") {
  Generator g(5);
  nn::SpectralNormConv2d conv({.in = 3, .out = 4, .kernel = 3}, g);
  conv.weight().detach().copy_(random_input(conv.weight().shape(), 7));
  const Tensor u0 = conv.u().copy();
  const Tensor v0 = conv.v().copy();
  const Tensor x = random_input({1, 3, 5, 5});
  const Tensor first = conv(x);
  const Tensor second = conv(random_input({1, 3, 5, 5}, 2));
  backward(first, random_input(first.shape(), 9));
  const Tensor together = conv.weight().grad();
  conv.zero_grad();
  conv.u().copy_(u0);
  conv.v().copy_(v0);
  const Tensor alone = conv(x);
  backward(alone, random_input(first.shape(), 9));
  CHECK(conv.weight().grad().to_vector<float>() == together.to_vector<float>());
  CHECK(second.requires_grad());
}

TEST_CASE("the weight is normalised in f32 under autocast") {
  Generator g(6);
  nn::SpectralNormConv2d conv({.in = 3, .out = 4, .kernel = 3}, g);
  const AutocastGuard low;
  CHECK(nn::spectral_normalize(conv.weight(), conv.u(), conv.v(), 1).dtype() == DType::kF32);
  CHECK(conv(random_input({1, 3, 5, 5})).dtype() == DType::kBF16);
}

TEST_CASE("self-attention starts as the identity and mixes positions afterwards") {
  Generator g(7);
  models::SelfAttention block(16, g);
  const Tensor x = random_input({2, 16, 3, 4});
  CHECK(block(x).to_vector<float>() == x.to_vector<float>());
  block.state_dict().at("gamma").fill_(0.5);
  const Tensor y = block(x);
  CHECK(test::relative_error(y, x) > 1e-2);
  // Moving one pixel of the input changes every pixel of the output of that image and none of the other.
  auto values = x.to_vector<float>();
  values[0] += 3.0F;
  const auto z = block(Tensor::from(values, x.shape())).to_vector<float>();
  const auto before = y.to_vector<float>();
  const std::size_t image = 16 * 12;
  for (std::size_t position = 0; position < 12; ++position) {
    bool moved = false;
    for (std::size_t c = 0; c < 16; ++c) moved = moved || z[c * 12 + position] != before[c * 12 + position];
    CHECK(moved);
  }
  for (std::size_t i = image; i < z.size(); ++i) CHECK(z[i] == before[i]);
  check_throws<ConfigError>([&] { models::SelfAttention(12, g); }, {"12 channels", "multiple of 8"});
}

TEST_CASE("parameters and sizes of the discriminator") {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  CHECK(Discriminator(19, g).parameter_count() == 3'191'721);
  Discriminator d(21, g);
  CHECK(d.parameter_count() == 3'193'773);
  d.eval();
  const NoGradGuard off;
  nn::LayerTracer tracer;
  CHECK(d(Tensor::empty({2, 21, 65, 65}, DType::kF32, kMeta)).shape() == Shape{2, 1, 1, 1});
  CHECK(tracer.total_params() + 2 == d.parameter_count());  // the two gammas belong to no leaf layer
  CHECK(d(Tensor::empty({1, 21, 97, 130}, DType::kF32, kMeta)).shape() == Shape{1, 1, 3, 5});
  check_throws<Error>(
      [&] {
        static_cast<void>(d(Tensor::empty({1, 21, 63, 65}, DType::kF32, kMeta)));
      },
      {"[1, 21, 63, 65]", ">= 64"});
}

TEST_CASE("every parameter of the discriminator gets a gradient; eval repeats and depends on no batch") {
  Generator g(8);
  Discriminator d(4, g);
  d.state_dict().at("attn1.gamma").fill_(0.1);
  d.state_dict().at("attn2.gamma").fill_(0.1);
  const Tensor x = random_input({2, 4, 65, 65});
  x.set_requires_grad(true);
  const Tensor y = d(x);
  backward(y, random_input(y.shape()));
  REQUIRE(x.grad().defined());
  for (const auto& p : d.named_parameters()) {
    CAPTURE(p.name);
    REQUIRE(p.tensor.grad().defined());
    double sum = 0;
    for (const double v : p.tensor.grad().to_vector<double>()) sum += v * v;
    CHECK(std::isfinite(sum));
    // A key's bias shifts all energies of a query alike, and softmax does not see that.
    if (p.name.find("key_conv.bias") == std::string::npos) CHECK(sum > 0);
  }
  d.eval();
  const NoGradGuard off;
  const Tensor a = d(x);
  CHECK(d(x).to_vector<float>() == a.to_vector<float>());
}

TEST_CASE("the tangent of the scores is their derivative along a direction, in both modes") {
  Generator g(3);
  Discriminator d(4, g);
  d.convert_(DType::kF64);
  for (const auto& [name, p] : d.named_parameters()) {
    if (name.ends_with("gamma")) p.detach().fill_(0.7);
  }
  const Tensor x = random_input({2, 4, 64, 64}, 5).copy_as(DType::kF64);
  const Tensor v = random_input({2, 4, 64, 64}, 6).copy_as(DType::kF64);
  const NoGradGuard off;
  const auto scores_at = [&](double h) {
    // The power iteration of a training pass would change the network between the two points.
    for (const auto& m : d.named_modules()) {
      if (m.name.starts_with("l")) m.module->eval();
    }
    return d(ops::add(x, ops::mul_scalar(v, h))).to_vector<double>();
  };
  for (const bool training : {false, true}) {
    CAPTURE(training);
    d.train(training);
    const auto exact = d.tangent(x, v).to_vector<double>();
    const auto up = scores_at(1e-7);
    const auto down = scores_at(-1e-7);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CHECK((up[i] - down[i]) / 2e-7 == doctest::Approx(exact[i]).epsilon(1e-5));
    }
  }
  check_throws<Error>(
      [&] {
        static_cast<void>(d.tangent(x, random_input({1, 4, 64, 64})));
      },
      {"[2, 4, 64, 64]", "[1, 4, 64, 64]"});
}

TEST_SUITE_END();
