// The convolution for inference on the GPU, real or emulated, against the reference; and layers that use it.
#include <doctest/doctest.h>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "nn/fused.h"
#include "ops/device_conv2d.h"
#include "ops/packed_conv2d.h"
#include "tests/cuda/device.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::kGpu;
using test::no_device;

namespace {

/// Largest difference relative to the largest value.
double error(const Tensor& got, const Tensor& expected) {
  const auto a = got.to_vector<double>();
  const auto b = expected.to_vector<double>();
  REQUIRE(a.size() == b.size());
  double most = 0;
  double size = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    if (d > most || std::isnan(d)) most = d;
    size = std::max(size, std::abs(b[i]));
  }
  return most / size;
}

struct Problem {
  Shape x, w;
  ops::Conv2dOptions options;
};

}  // namespace

TEST_SUITE_BEGIN("cuda_conv");

TEST_CASE("convolutions for inference are those of the reference") {
  if (no_device()) return;
  const std::vector<Problem> problems{
      {{2, 16, 9, 7}, {24, 16, 1, 1}, {}},
      {{1, 8, 12, 12}, {16, 8, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
      {{2, 8, 11, 9}, {8, 8, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
      {{1, 3, 17, 15}, {8, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}},
      {{1, 16, 6, 6}, {16, 4, 3, 3}, {.padding = {1, 1}, .groups = 4}},
      {{2, 12, 10, 8}, {12, 1, 3, 3}, {.padding = {1, 1}, .groups = 12}},
  };
  Generator g(1);
  for (const Problem& p : problems) {
    CAPTURE(p.w);
    const Tensor x = test::random_normal(g, p.x);
    const Tensor w = test::random_normal(g, p.w).copy_as(DType::kF32);
    const Tensor b = test::random_normal(g, {p.w[0]}).copy_as(DType::kF32);
    const Shape shape = ops::conv2d_output_shape("test", p.x, p.w, p.options);
    const Tensor residual = test::random_normal(g, shape);
    for (const auto act : {ops::Activation::kNone, ops::Activation::kRelu, ops::Activation::kRelu6}) {
      for (const bool adds : {false, true}) {
        const Tensor wide = adds ? residual : Tensor();
        const Tensor expected =
            ops::PackedConv2d(w.copy_as(DType::kF64), b.copy_as(DType::kF64), p.options, act, DType::kF64)(x, wide);
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const ops::DeviceConv2d convolution(w, b, p.options, act, dtype, kGpu);
          const Tensor add = adds ? residual.copy_as(dtype).to(kGpu) : Tensor();
          const Tensor y = convolution(x.copy_as(dtype).to(kGpu), add);
          CHECK(y.dtype() == dtype);
          CHECK(error(y, expected) <= (dtype == DType::kF32 ? 1e-5 : 2e-2));
        }
      }
    }
  }
}

TEST_CASE("what a convolution for inference refuses") {
  if (no_device()) return;
  const Tensor w = Tensor::zeros({4, 3, 1, 1});
  const Tensor b = Tensor::zeros({4});
  const auto make = [&](const Tensor& weight, const Tensor& bias, DType dtype) {
    return ops::DeviceConv2d(weight, bias, {}, ops::Activation::kNone, dtype, kGpu);
  };
  CHECK_THROWS_WITH_AS(static_cast<void>(make(w, b, DType::kF64)), doctest::Contains("expected f32 or bf16"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(make(w, Tensor::zeros({3}), DType::kF32)), doctest::Contains("and [O]"),
                       Error);
  const auto convolution = make(w, b, DType::kF32);
  const Tensor x = Tensor::zeros({1, 3, 4, 4});
  CHECK_THROWS_WITH_AS(static_cast<void>(convolution(x)), doctest::Contains("the weights on cuda:0"), Error);
  const Tensor there = x.to(kGpu);
  CHECK_THROWS_WITH_AS(static_cast<void>(convolution(there, there)), doctest::Contains("residual has shape"), Error);
  there.set_requires_grad(true);
  CHECK_THROWS_WITH_AS(static_cast<void>(convolution(there)), doctest::Contains("requires a gradient"), Error);
}

TEST_CASE("a layer in eval mode folds its batch norm on the device, and again when its weights have changed") {
  if (no_device()) return;
  std::vector<Tensor> results;
  for (const Device device : {kCpu, kGpu}) {
    const nn::ParameterDevice on(device);
    const NoGradGuard off;
    Generator g(2);
    nn::ConvBnAct layer({.in = 8, .out = 12, .kernel = 3, .padding = 1}, {}, ops::Activation::kRelu6, g);
    layer.eval();
    const Tensor x = test::random_normal(g, {2, 8, 7, 6}).copy_as(DType::kF32).to(device);
    for (int k = 0; k < 2; ++k) {
      results.push_back(layer(x));
      layer.named_buffers()[0].tensor.fill_(0.3);  // the running mean
    }
  }
  CHECK(error(results[2], results[0]) <= 1e-5);
  CHECK(error(results[3], results[1]) <= 1e-5);
  CHECK(error(results[2], results[1]) > 1e-3);
}

TEST_SUITE_END();
