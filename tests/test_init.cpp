// Distribution, fans and repeatability of initial weights.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "nn/init.h"
#include "nn/layers.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;

namespace {

struct Moments {
  double mean, stddev, low, high;
};

Moments moments(const Tensor& t) {
  const auto v = t.to_vector<double>();
  double sum = 0;
  double square = 0;
  for (const double x : v) {
    sum += x;
    square += x * x;
  }
  const auto n = static_cast<double>(v.size());
  return {sum / n, std::sqrt(square / n - sum / n * sum / n), *std::min_element(v.begin(), v.end()),
          *std::max_element(v.begin(), v.end())};
}

const Shape kShape{64, 32, 3, 3};  // fan_in 288, fan_out 576, 18432 numbers

void check_normal(const Tensor& t, double stddev) {
  const Moments m = moments(t);
  CHECK(std::abs(m.mean) < 0.03 * stddev);
  CHECK(m.stddev == doctest::Approx(stddev).epsilon(0.02));
  CHECK(m.high > 3 * stddev);
}

void check_uniform(const Tensor& t, double bound) {
  const Moments m = moments(t);
  CHECK(std::abs(m.mean) < 0.02 * bound);
  CHECK(m.stddev == doctest::Approx(bound / std::sqrt(3.0)).epsilon(0.02));
  CHECK(m.low >= -bound);
  CHECK(m.high <= bound);
  CHECK(m.high > 0.995 * bound);
}

}  // namespace

TEST_SUITE_BEGIN("init");

TEST_CASE("fans look at dimensions 0 and 1 and the kernel") {
  CHECK(nn::fans_of({64, 32, 3, 3}).in == 288);
  CHECK(nn::fans_of({64, 32, 3, 3}).out == 576);
  CHECK(nn::fans_of({96, 1, 3, 3}).in == 9);  // depthwise
  CHECK(nn::fans_of({96, 1, 3, 3}).out == 864);
  CHECK(nn::fans_of({10, 7}).in == 7);
  CHECK(nn::fans_of({10, 7}).out == 10);
  test::check_throws<Error>([] { static_cast<void>(nn::fans_of({3})); }, {"[init]", "[3]"});
}

TEST_CASE("every scheme has its published spread") {
  Generator g(3);
  const Tensor w = Tensor::empty(kShape);
  nn::kaiming_normal_(w, g);
  check_normal(w, std::sqrt(2.0 / 288));
  nn::kaiming_normal_(w, g, nn::FanMode::kFanOut);
  check_normal(w, std::sqrt(2.0 / 576));
  nn::kaiming_uniform_(w, g);
  check_uniform(w, std::sqrt(6.0 / 288));
  nn::kaiming_uniform_(w, g, nn::FanMode::kFanIn, nn::relu_gain(std::sqrt(5.0)));
  check_uniform(w, 1.0 / std::sqrt(288.0));
  nn::xavier_normal_(w, g);
  check_normal(w, std::sqrt(2.0 / (288 + 576)));
  nn::xavier_uniform_(w, g);
  check_uniform(w, std::sqrt(6.0 / (288 + 576)));
  nn::normal_(w, g, 0.0, 0.01);
  check_normal(w, 0.01);
  nn::constant_(w, 0.25);
  CHECK(moments(w).low == 0.25);
  CHECK(moments(w).high == 0.25);
}

TEST_CASE("layers start as torch.nn and torchvision do") {
  Generator g(4);
  const nn::Conv2d plain({.in = 32, .out = 64, .kernel = 3}, g);
  check_uniform(plain.weight(), 1.0 / std::sqrt(288.0));
  const Moments b = moments(plain.bias());
  CHECK(b.high <= 1.0 / std::sqrt(288.0));
  CHECK(b.high > 0.8 / std::sqrt(288.0));
  CHECK(b.low < 0);
  const nn::Conv2d out({.in = 32, .out = 64, .kernel = 3, .init = nn::Init::kKaimingNormalFanOut}, g);
  check_normal(out.weight(), std::sqrt(2.0 / 576));
  CHECK(moments(out.bias()).high == 0.0);
  const nn::Linear linear({.in = 300, .out = 40}, g);
  check_uniform(linear.weight(), 1.0 / std::sqrt(300.0));
  const nn::BatchNorm2d bn(5);
  CHECK(bn.weight().to_vector<float>() == std::vector<float>(5, 1.0F));
  CHECK(bn.bias().to_vector<float>() == std::vector<float>(5, 0.0F));
  CHECK(bn.running_var().to_vector<float>() == std::vector<float>(5, 1.0F));
}

TEST_CASE("values depend on the seed, not on the memory layout") {
  Generator a(9);
  Generator b(9);
  Generator c(10);
  const Tensor x = Tensor::empty(kShape);
  const Tensor y = Tensor::empty_strided(kShape, row_major_strides(kShape), DType::kF32);
  const Tensor z = Tensor::empty(kShape);
  nn::kaiming_normal_(x, a);
  nn::kaiming_normal_(y, b);
  nn::kaiming_normal_(z, c);
  CHECK(x.to_vector<float>() == y.to_vector<float>());
  CHECK(x.to_vector<float>() != z.to_vector<float>());
  const auto version = x.version();
  nn::kaiming_normal_(x, a);
  CHECK(x.version() != version);
}

TEST_SUITE_END();
