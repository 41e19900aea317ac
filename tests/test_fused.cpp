// conv_bn_act: both ways agree with the layers one after the other, and the folded cache notices every change.
#include <doctest/doctest.h>

#include "core/autocast.h"
#include "core/dispatch.h"
#include "nn/ema.h"
#include "nn/fused.h"
#include "nn/sgd.h"
#include "nn/tracer.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using ops::Activation;
using test::relative_error;

namespace {

Tensor noise(const Shape& shape, std::uint64_t seed) {
  const Tensor t = Tensor::empty(shape);
  Generator g(seed);
  fill_normal_(t, g, 0.0, 1.0);
  return t;
}

/// A convolution and a batch norm whose statistics and affine parameters are far from their initial values.
struct Pair : nn::Module {
  explicit Pair(const nn::ConvArgs& args) : Pair(args, Generator(3)) {}
  Pair(const nn::ConvArgs& args, Generator g) : conv(args, g), bn(args.out, {.eps = 1e-3}) {
    register_module("conv", conv);
    register_module("bn", bn);
    const nn::StateDict s = state_dict();
    fill_uniform_(s.at("bn.weight"), g, 0.5, 1.5);
    fill_normal_(s.at("bn.bias"), g, 0.0, 1.0);
    fill_normal_(s.at("bn.running_mean"), g, 0.0, 1.0);
    fill_uniform_(s.at("bn.running_var"), g, 0.2, 2.0);
  }
  Tensor fused(const Tensor& x, Activation act, const Tensor& residual = {}) {
    return nn::conv_bn_act(conv, bn, act, x, residual);
  }
  nn::Conv2d conv;
  nn::BatchNorm2d bn;
};

/// The layers one after the other, in f64 with reference kernels.
Tensor definition(const nn::ConvArgs& args, const Pair& like, Activation act, const Tensor& x, const Tensor& residual) {
  Pair exact(args);
  exact.load_state_dict(like.state_dict());
  exact.convert_(DType::kF64);
  exact.train(like.is_training());
  const NoGradGuard off;
  Tensor y = exact.bn(exact.conv(x.copy_as(DType::kF64)));
  if (residual.defined()) y = ops::add(y, residual.copy_as(DType::kF64));
  return nn::activate(y, act);
}

const nn::ConvArgs kArgs[] = {
    {.in = 8, .out = 19, .kernel = 1, .bias = false},
    {.in = 8, .out = 21, .kernel = 3, .padding = 1, .bias = false},
    {.in = 5, .out = 7, .kernel = 3, .padding = 2, .dilation = 2, .bias = true},
    {.in = 24, .out = 24, .kernel = 3, .padding = 1, .groups = 24, .bias = false},
};

}  // namespace

TEST_SUITE_BEGIN("fused");

TEST_CASE("inference and training agree with the layers one after the other") {
  for (const nn::ConvArgs& args : kArgs) {
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
      for (const bool with_residual : {false, true}) {
        for (const bool training : {false, true}) {
          CAPTURE(args.out);
          CAPTURE(static_cast<int>(act));
          CAPTURE(with_residual);
          CAPTURE(training);
          Pair p(args);
          p.train(training);
          const Tensor x = noise({2, args.in, 9, 7}, 5);
          const Tensor residual = with_residual ? noise({2, args.out, 9, 7}, 6) : Tensor();
          const Tensor expected = definition(args, p, act, x, residual);
          const NoGradGuard off;
          CHECK(relative_error(p.fused(x, act, residual), expected) < 2e-5);
        }
      }
    }
  }
}

TEST_CASE("eval mode with gradients takes the recording way and gives the same values") {
  Pair p(kArgs[1]);
  p.eval();
  const Tensor x = noise({2, 8, 9, 7}, 5);
  const Tensor y = p.fused(x, Activation::kRelu);
  CHECK(y.requires_grad());
  {
    const NoGradGuard off;
    const Tensor z = p.fused(x, Activation::kRelu);
    CHECK(!z.requires_grad());
    CHECK(relative_error(z, y) < 1e-5);
    const ReferenceGuard reference;
    CHECK(relative_error(p.fused(x, Activation::kRelu), y) < 1e-5);
  }
  ops::mean(y).backward();
  CHECK(p.conv.weight().grad().defined());
  CHECK(p.bn.weight().grad().defined());
}

TEST_CASE("a frozen pair is folded even while recording is on") {
  Pair p(kArgs[1]);
  p.freeze();
  const Tensor x = noise({1, 8, 9, 7}, 5);
  CHECK(!p.fused(x, Activation::kRelu).requires_grad());
  CHECK(p.conv.folded() != nullptr);
  // A gradient towards the input is still given.
  x.set_requires_grad(true);
  const Tensor y = p.fused(x, Activation::kRelu);
  CHECK(y.requires_grad());
  ops::mean(y).backward();
  CHECK(x.grad().defined());
}

TEST_CASE("the folded weights are rebuilt after every kind of change") {
  const nn::ConvArgs& args = kArgs[1];
  Pair p(args);
  p.eval();
  const Tensor x = noise({2, 8, 9, 7}, 5);
  const auto check_current = [&](const char* what) {
    CAPTURE(what);
    const NoGradGuard off;
    CHECK(relative_error(p.fused(x, Activation::kRelu), definition(args, p, Activation::kRelu, x, {})) < 2e-5);
  };
  check_current("first");
  const nn::StateDict s = p.state_dict();
  for (const char* name : {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"}) {
    Generator g(77);
    const Tensor fresh = Tensor::empty(s.at(name).shape());
    fill_uniform_(fresh, g, 0.5, 1.0);
    s.at(name).copy_(fresh);
    check_current(name);
  }
  nn::Sgd sgd({{p.named_parameters()}}, {.momentum = 0.0});
  p.train();
  ops::mean(ops::square(p.fused(x, Activation::kRelu))).backward();  // changes the running statistics
  p.eval();
  check_current("after a training forward");
  sgd.step(0.5);
  check_current("after an optimizer step");
  nn::Ema ema(p, {.decay = 0.5, .ramp = false});
  s.at("conv.weight").fill_(0.25);
  {
    const nn::EmaScope scope(ema);
    check_current("inside EmaScope");
  }
  check_current("after EmaScope");
  p.load_state_dict(Pair(args).state_dict());
  check_current("after loading");
  {
    const NoGradGuard off;
    const Tensor linear = p.fused(x, Activation::kNone);
    CHECK(relative_error(linear, definition(args, p, Activation::kNone, x, {})) < 2e-5);
  }
  check_current("after another activation");
}

TEST_CASE("under autocast the folded way computes in bf16") {
  const nn::ConvArgs& args = kArgs[1];
  Pair p(args);
  p.eval();
  const Tensor x = noise({2, 8, 9, 7}, 5);
  const Tensor residual = noise({2, 21, 9, 7}, 8);
  const NoGradGuard off;
  const Tensor expected = definition(args, p, Activation::kRelu, x, residual);
  {
    const AutocastGuard autocast;
    const Tensor y = p.fused(x, Activation::kRelu, residual);
    CHECK(y.dtype() == DType::kBF16);
    CHECK(relative_error(y, expected) < 2e-2);
  }
  const Tensor y = p.fused(x, Activation::kRelu, residual);  // back in f32: not the bf16 weights
  CHECK(y.dtype() == DType::kF32);
  CHECK(relative_error(y, expected) < 2e-5);
}

TEST_CASE("a plain convolution runs packed in inference too") {
  Generator g(4);
  nn::Conv2d conv({.in = 8, .out = 5, .kernel = 3, .padding = 1}, g);
  const Tensor x = noise({2, 8, 9, 7}, 5);
  const Tensor recorded = conv(x);
  CHECK(conv.folded() == nullptr);
  conv.eval();
  const NoGradGuard off;
  CHECK(relative_error(conv(x), recorded) < 1e-5);
  CHECK(conv.folded() != nullptr);
  CHECK(relative_error(nn::conv_act(conv, Activation::kRelu, x), ops::relu(recorded)) < 1e-5);
  conv.weight().fill_(0.0);
  CHECK(relative_error(conv(x), ops::conv2d(x, conv.weight(), conv.bias(), conv.options())) < 1e-5);
}

TEST_CASE("gradients of the training way equal those of the layers one after the other") {
  const nn::ConvArgs& args = kArgs[2];
  Pair a(args);
  Pair b(args);
  a.convert_(DType::kF64);
  b.convert_(DType::kF64);
  const Tensor x = noise({2, 5, 9, 7}, 5).copy_as(DType::kF64);
  const Tensor r = noise({2, 7, 9, 7}, 6).copy_as(DType::kF64);
  const Tensor weight = noise({2, 7, 9, 7}, 7).copy_as(DType::kF64);
  ops::sum(ops::mul(weight, a.fused(x, Activation::kRelu6, r))).backward();
  ops::sum(ops::mul(weight, ops::relu6(ops::add(b.bn(b.conv(x)), r)))).backward();
  const auto pa = a.named_parameters();
  const auto pb = b.named_parameters();
  for (std::size_t i = 0; i < pa.size(); ++i) {
    if (pa[i].name == "conv.bias") continue;  // batch norm cancels it: both are rounding noise
    CHECK_MESSAGE(relative_error(pa[i].tensor.grad(), pb[i].tensor.grad()) < 1e-9, pa[i].name);
  }
}

TEST_CASE("the trace is the same in both ways and names the fused activation") {
  Pair p(kArgs[1]);
  p.eval();
  const Tensor x = noise({1, 8, 9, 7}, 5);
  nn::LayerTracer recorded;
  static_cast<void>(p.fused(x, Activation::kRelu6, noise({1, 21, 9, 7}, 1)));
  const auto a = recorded.records();
  const NoGradGuard off;
  nn::LayerTracer folded;
  static_cast<void>(p.fused(x, Activation::kRelu6, noise({1, 21, 9, 7}, 1)));
  const auto b = folded.records();
  REQUIRE(a.size() == 2);
  REQUIRE(b.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(a[i].name == b[i].name);
    CHECK(a[i].type == b[i].type);
    CHECK(a[i].macs == b[i].macs);
    CHECK(a[i].params == b[i].params);
  }
  CHECK(b[1].type == "BatchNorm2d + add + ReLU6");
  CHECK(b[0].macs == 21 * 9 * 7 * 8 * 9);
}

TEST_CASE("ConvBnAct has torchvision's names, no bias, and a tap before its activation") {
  Generator g(4);
  nn::ConvBnAct layer({.in = 3, .out = 4, .kernel = 3, .padding = 1, .bias = true}, {}, Activation::kRelu, g);
  const nn::StateDict s = layer.state_dict();
  CHECK(s.contains("0.weight"));
  CHECK(!s.contains("0.bias"));
  CHECK(s.contains("1.running_var"));
  layer.eval();
  const NoGradGuard off;
  const Tensor x = noise({1, 3, 5, 5}, 2);
  const Tensor before = layer.before_activation(x);
  CHECK(relative_error(ops::relu(before), layer(x)) < 1e-6);
  CHECK(ops::mean(before).item() < ops::mean(layer(x)).item());
}

TEST_SUITE_END();
