// Depthwise convolution: known answers, the dense convolution as oracle, threads, repeatability, messages.
#include "ops/depthwise.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "ops/conv2d.h"
#include "ops/depthwise_kernels.h"
#include "tests/harness/op_case.h"

using namespace limbeck;

TEST_SUITE_BEGIN("depthwise");

namespace {

using test::random_normal;
using test::relative_error;

ops::Conv2dOptions with_groups(ops::Conv2dOptions options, std::int64_t groups) {
  options.groups = groups;
  return options;
}

struct Gradients {
  Tensor y, gx, gw;
};

Gradients run(const Tensor& x0, const Tensor& w0, const ops::Conv2dOptions& options) {
  const Tensor x = x0.copy().set_requires_grad(true);
  const Tensor w = w0.copy().set_requires_grad(true);
  Gradients g;
  g.y = ops::conv2d(x, w, {}, options);
  Generator seed(3);
  backward(g.y, random_normal(seed, g.y.shape()).copy_as(g.y.dtype()));
  g.gx = x.grad();
  g.gw = w.grad();
  return g;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.raw_data(), b.raw_data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

}  // namespace

TEST_CASE("channels do not mix") {
  // Channel c has the kernel with a single c + 1 at its centre.
  const std::int64_t channels = 19;
  const Tensor x = Tensor::full({2, channels, 4, 5}, 2.0);
  const Tensor w = Tensor::zeros({channels, 1, 3, 3});
  for (std::int64_t c = 0; c < channels; ++c) w.view().at<float>(c, 0, 1, 1) = static_cast<float>(c + 1);
  const Tensor y = ops::conv2d(x, w, {}, with_groups({.padding = {1, 1}}, channels));
  for (std::int64_t c = 0; c < channels; ++c) {
    CHECK(y.view().at<float>(1, c, 3, 4) == 2.0F * static_cast<float>(c + 1));
    CHECK(y.view().at<float>(0, c, 0, 0) == 2.0F * static_cast<float>(c + 1));
  }
}

TEST_CASE("3x3 of ones counts the neighbours inside the map") {
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const Tensor x = Tensor::full({1, 17, 3, 4}, 1.0, type).set_requires_grad(true);
    const Tensor w = Tensor::full({17, 1, 3, 3}, 1.0, type == DType::kF64 ? type : DType::kF32).set_requires_grad(true);
    const Tensor y = ops::conv2d(x, w, {}, with_groups({.padding = {1, 1}}, 17));
    const std::vector<double> map{4, 6, 6, 4, 6, 9, 9, 6, 4, 6, 6, 4};
    const auto values = y.to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == map[i % 12]);
    backward(y, Tensor::full(y.shape(), 1.0, type));
    const auto gx = x.grad().to_vector<double>();
    for (std::size_t i = 0; i < gx.size(); ++i) REQUIRE(gx[i] == map[i % 12]);
    const std::vector<double> seen{6, 8, 6, 9, 12, 9, 6, 8, 6};
    const auto gw = w.grad().to_vector<double>();
    for (std::size_t i = 0; i < gw.size(); ++i) REQUIRE(gw[i] == seen[i % 9]);
  }
}

TEST_CASE("it equals a dense convolution with a diagonal weight") {
  Generator g(4);
  const std::int64_t channels = 35;
  for (const ops::Conv2dOptions& options :
       {ops::Conv2dOptions{.padding = {1, 1}}, ops::Conv2dOptions{.stride = {2, 2}, .padding = {1, 1}},
        ops::Conv2dOptions{.stride = {3, 1}, .padding = {2, 4}, .dilation = {2, 4}}}) {
    CAPTURE(options.to_string());
    const Tensor x = random_normal(g, {2, channels, 12, 13}).copy_as(DType::kF32);
    const Tensor w = random_normal(g, {channels, 1, 3, 3}).copy_as(DType::kF32);
    const Tensor dense = Tensor::zeros({channels, channels, 3, 3});
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t k = 0; k < 9; ++k)
        dense.view().at<float>(c, c, k / 3, k % 3) = w.view().at<float>(c, 0, k / 3, k % 3);
    }
    const Gradients a = run(x, w, with_groups(options, channels));
    const Gradients b = run(x, dense, options);
    CHECK(relative_error(a.y, b.y) < 1e-5);
    CHECK(relative_error(a.gx, b.gx) < 1e-5);
    double worst = 0.0;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t k = 0; k < 9; ++k) {
        worst = std::max(worst, std::abs(static_cast<double>(a.gw.view().at<float>(c, 0, k / 3, k % 3)) -
                                         static_cast<double>(b.gw.view().at<float>(c, c, k / 3, k % 3))));
      }
    }
    CHECK(worst < 1e-3);
  }
}

TEST_CASE("results do not depend on the number of threads") {
  Generator g(6);
  const Tensor x = random_normal(g, {2, 24, 23, 20}).copy_as(DType::kF32);
  const Tensor w = random_normal(g, {24, 1, 3, 3}).copy_as(DType::kF32);
  const auto options = with_groups({.stride = {2, 2}, .padding = {1, 1}}, 24);
  const int before = max_threads();
  set_threads(1);
  const Gradients one = run(x, w, options);
  set_threads(3);
  const Gradients three = run(x, w, options);
  set_threads(before);
  CHECK(same_bits(one.y, three.y));
  CHECK(same_bits(one.gx, three.gx));
  CHECK(same_bits(one.gw, three.gw));
}

TEST_CASE("weights are not rounded to bf16") {
  // 1 + 2^-10 is not a bf16 number. The difference of two taps shows whether it was rounded:
  // (1 + 2^-10) * 512 - 512 = 0.5, and 0 with a rounded weight.
  const Tensor x = Tensor::full({1, 16, 1, 2}, 512.0, DType::kBF16);
  const Tensor w = Tensor::zeros({16, 1, 1, 2});
  for (std::int64_t c = 0; c < 16; ++c) {
    w.view().at<float>(c, 0, 0, 0) = 1.0F + 0x1p-10F;
    w.view().at<float>(c, 0, 0, 1) = -1.0F;
  }
  const Tensor y = ops::conv2d(x, w, {}, with_groups({}, 16));
  CHECK(y.to_vector<float>() == std::vector<float>(16, 0.5F));
}

TEST_CASE("bias, residual and activation in the same pass") {
  Generator g(7);
  const Tensor x = random_normal(g, {1, 21, 5, 6}).copy_as(DType::kF32);
  const Tensor w = random_normal(g, {21, 1, 3, 3}).copy_as(DType::kF32);
  const Tensor b = random_normal(g, {21}).copy_as(DType::kF32);
  const auto options = with_groups({.padding = {1, 1}}, 21);
  const Tensor plain = ops::conv2d(x, w, b, options);
  const Tensor residual = random_normal(g, plain.shape()).copy_as(DType::kF32);
  const Tensor y = Tensor::empty_like(plain);
  ops::kDepthwiseForward(kCpu, DType::kF32, x.view(), w.view(), b.view(), residual.view(), ops::Activation::kRelu6,
                         options, y.view());
  const auto a = plain.to_vector<float>();
  const auto r = residual.to_vector<float>();
  const auto got = y.to_vector<float>();
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i] == doctest::Approx(ops::activate(ops::Activation::kRelu6, a[i] + r[i])).epsilon(1e-5));
  }
}

TEST_CASE("messages") {
  std::string text;
  try {
    static_cast<void>(
        ops::depthwise_conv2d(Tensor::zeros({1, 4, 3, 3}), Tensor::zeros({4, 2, 3, 3}), {}, {.groups = 2}));
  } catch (const Error& e) {
    text = e.what();
  }
  CHECK(text.find("[depthwise_conv2d] input [1, 4, 3, 3] and weight [4, 2, 3, 3] with 2 groups") == 0);
  CHECK(text.find("use conv2d") != std::string::npos);
}

TEST_SUITE_END();
