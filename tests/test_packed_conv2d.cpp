// PackedConv2d against the composition conv2d + residual + activation in f64, on all engines; Winograd; steady state.
#include "ops/packed_conv2d.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/memory.h"
#include "ops/conv2d_engine.h"
#include "tests/harness/conv_problem.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::message_of;

TEST_SUITE_BEGIN("packed_conv2d");

namespace {

using ops::Activation;
using ops::Conv2dOptions;
using ops::PackedConv2d;
using test::conv_truth;
using test::ConvProblem;
using test::random_normal;
using test::relative_error;
using test::rounded_normal;
using test::rounded_weights;

// Where a processor has no matrix units, the last one stands for the tiles.
constexpr ops::ConvEngine kEngines[] = {ops::ConvEngine::kTiles, ops::ConvEngine::kOneDnn, ops::ConvEngine::kAmx};

const ConvProblem kProblems[] = {
    {"1x1", {2, 64, 9, 7}, {40, 64, 1, 1}, {}},
    {"1x1 stride 2", {1, 33, 9, 8}, {21, 33, 1, 1}, {.stride = {2, 2}}},
    {"first layer", {2, 3, 20, 22}, {16, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}},
    {"3x3, odd map", {2, 32, 13, 15}, {48, 32, 3, 3}, {.padding = {1, 1}}},
    {"3x3, one pixel", {1, 32, 1, 1}, {33, 32, 3, 3}, {.padding = {1, 1}}},
    {"3x3, dilation 2", {2, 40, 16, 16}, {36, 40, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
    {"3x3, dilation 2 of an odd map", {1, 32, 9, 7}, {32, 32, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
    {"3x3, dilation 12 of a map of 16", {1, 32, 16, 16}, {32, 32, 3, 3}, {.padding = {12, 12}, .dilation = {12, 12}}},
    {"3x3, padding 0", {1, 32, 8, 9}, {32, 32, 3, 3}, {}},
    {"3x3, padding 2", {1, 32, 6, 6}, {32, 32, 3, 3}, {.padding = {2, 2}}},
    {"3x3 stride 2", {2, 32, 11, 10}, {32, 32, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
    {"3x3, dilation 12 of an odd map", {1, 32, 19, 21}, {32, 32, 3, 3}, {.padding = {12, 12}, .dilation = {12, 12}}},
    {"3x3, a long sum", {1, 672, 9, 9}, {40, 672, 3, 3}, {.padding = {1, 1}}},
    {"few channels, dilated", {1, 5, 9, 11}, {17, 5, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
    {"2 groups", {1, 24, 7, 7}, {36, 12, 3, 3}, {.padding = {1, 1}, .groups = 2}},
    {"depthwise", {2, 37, 9, 8}, {37, 1, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 37}},
};

}  // namespace

TEST_CASE("equals the composition") {
  Generator g(1);
  for (const auto& p : kProblems) {
    CAPTURE(p.label);
    const Tensor x = rounded_normal(g, p.x);
    const Tensor w = rounded_weights(g, p.w);
    const Tensor b = rounded_normal(g, {p.w[0]});
    const Tensor residual = rounded_normal(g, ops::conv2d_output_shape("test", p.x, p.w, p.options));
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
      for (const bool with_residual : {false, true}) {
        CAPTURE(ops::name_of(act));
        CAPTURE(with_residual);
        const Tensor r = with_residual ? residual : Tensor();
        const Tensor truth = conv_truth(x, w, b, r, p.options, act);
        for (const auto engine : kEngines) {
          const ops::ConvEngineGuard guard(engine);
          for (const DType type : {DType::kF32, DType::kBF16}) {
            CAPTURE(name_of(type));
            const PackedConv2d packed(w.copy_as(DType::kF32), b.copy_as(DType::kF32), p.options, act, type,
                                      ops::F32Math::kParts);
            const Tensor y = packed(x.copy_as(type), r.defined() ? r.copy_as(type) : r);
            CHECK(y.dtype() == type);
            CHECK(relative_error(y, truth) < (type == DType::kF32 ? 2e-5 : 2e-2));
          }
        }
      }
    }
    const PackedConv2d reference(w, b, p.options, Activation::kRelu, DType::kF64);
    CHECK(relative_error(reference(x, residual), conv_truth(x, w, b, residual, p.options, Activation::kRelu)) < 1e-14);
  }
}

TEST_CASE("f32 is f32: inputs and weights that no bf16 number holds") {
  Generator g(6);
  for (const ConvProblem& p : {kProblems[0], kProblems[2], kProblems[3], kProblems[12]}) {
    CAPTURE(p.label);
    const Tensor x = random_normal(g, p.x).copy_as(DType::kF32);
    const Tensor w = random_normal(g, p.w).copy_as(DType::kF32);
    const Tensor truth =
        conv_truth(x.copy_as(DType::kF64), w.copy_as(DType::kF64), {}, {}, p.options, Activation::kNone);
    for (const auto engine : kEngines) {
      const ops::ConvEngineGuard guard(engine);
      const double error = relative_error(
          PackedConv2d(w, {}, p.options, Activation::kNone, DType::kF32, ops::F32Math::kParts)(x), truth);
      // Without AMX its problems are those of the tiles, which may be Winograd's.
      const bool tiles = engine == ops::ConvEngine::kTiles ||
                         (engine == ops::ConvEngine::kAmx && !ops::amx_fits(w.shape(), p.options));
      CHECK(error < (tiles ? 2e-5 : 1e-5));
      CHECK(relative_error(PackedConv2d(w, {}, p.options, Activation::kNone, DType::kF32)(x), truth) < 2e-5);
    }
  }
}

TEST_CASE("without a bias, and with an input of another type or layout") {
  Generator g(2);
  const Tensor x = rounded_normal(g, {1, 16, 5, 6});
  const Tensor w = rounded_weights(g, {24, 16, 3, 3});
  const ConvProblem p{"", {}, {}, {.padding = {1, 1}}};
  const Tensor truth = conv_truth(x, w, {}, {}, p.options, Activation::kRelu);
  const PackedConv2d packed(w.copy_as(DType::kF32), {}, p.options, Activation::kRelu, DType::kBF16);
  CHECK(relative_error(packed(x.copy_as(DType::kF32)), truth) < 2e-2);
  const Tensor row_major = Tensor::empty_strided({1, 16, 5, 6}, row_major_strides({1, 16, 5, 6}), DType::kBF16);
  row_major.copy_(x);
  CHECK(relative_error(packed(row_major), truth) < 2e-2);
}

TEST_CASE("a NaN in the input reaches the output through ReLU") {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Tensor x = Tensor::full({1, 32, 8, 8}, 1.0);
    x.view().at<float>(0, 3, 2, 2) = std::numeric_limits<float>::quiet_NaN();
    const PackedConv2d packed(Tensor::full({32, 32, 3, 3}, 1.0), {}, {.padding = {1, 1}}, Activation::kRelu, type,
                              ops::F32Math::kParts);
    CHECK(std::isnan(packed(x.copy_as(type)).copy_as(DType::kF32).view().at<float>(0, 0, 2, 3)));
  }
}

TEST_CASE("one object serves several input sizes") {
  Generator g(3);
  const Tensor w = rounded_weights(g, {32, 32, 3, 3});
  const ConvProblem p{"", {}, {}, {.padding = {1, 1}}};
  for (const auto engine : kEngines) {
    const ops::ConvEngineGuard guard(engine);
    const PackedConv2d packed(w.copy_as(DType::kF32), {}, p.options, Activation::kNone, DType::kF32,
                              ops::F32Math::kParts);
    for (const std::int64_t size : {8, 15, 8, 3}) {
      const Tensor x = rounded_normal(g, {2, 32, size, size + 1});
      CHECK(relative_error(packed(x.copy_as(DType::kF32)), conv_truth(x, w, {}, {}, p.options, Activation::kNone)) <
            2e-5);
    }
  }
}

TEST_CASE("the steady state asks the system for no memory") {
  Generator g(4);
  const PackedConv2d packed(random_normal(g, {64, 64, 3, 3}).copy_as(DType::kF32), {}, {.padding = {1, 1}},
                            Activation::kRelu, DType::kF32);
  const Tensor x = random_normal(g, {2, 64, 20, 20}).copy_as(DType::kF32);
  for (int i = 0; i < 2; ++i) static_cast<void>(packed(x));
  const auto before = CpuAllocator::get().stats().system_allocations;
  for (int i = 0; i < 5; ++i) static_cast<void>(packed(x));
  CHECK(CpuAllocator::get().stats().system_allocations == before);
}

TEST_CASE("the reference guard gives the plain loops") {
  Generator g(5);
  const Tensor x = rounded_normal(g, {1, 8, 6, 6});
  const Tensor w = rounded_weights(g, {8, 8, 3, 3});
  const ConvProblem p{"", {}, {}, {.padding = {1, 1}}};
  const ReferenceGuard guard;
  const PackedConv2d packed(w.copy_as(DType::kF32), {}, p.options, Activation::kNone, DType::kF32);
  CHECK(relative_error(packed(x.copy_as(DType::kF32)), conv_truth(x, w, {}, {}, p.options, Activation::kNone)) < 1e-6);
}

TEST_CASE("LIMBECK_F32 chooses what f32 means, and a misspelt value is an error") {
  const char* before = std::getenv("LIMBECK_F32");
  const std::string kept = before != nullptr ? before : "";
  ::unsetenv("LIMBECK_F32");
  CHECK(ops::f32_math_setting() == ops::F32Math::kParts);
  ::setenv("LIMBECK_F32", "exact", 1);
  CHECK(ops::f32_math_setting() == ops::F32Math::kExact);
  ::setenv("LIMBECK_F32", "full", 1);
  CHECK(message_of([] { (void)ops::f32_math_setting(); }) == "[LIMBECK_F32] is 'full', expected exact or parts");
  if (before != nullptr) {
    ::setenv("LIMBECK_F32", kept.c_str(), 1);
  } else {
    ::unsetenv("LIMBECK_F32");
  }
}

TEST_CASE("messages") {
  const Tensor w = Tensor::zeros({8, 4, 3, 3});
  const PackedConv2d packed(w, {}, {}, Activation::kNone, DType::kF32);
  CHECK(message_of([&] {
          static_cast<void>(packed(Tensor::zeros({1, 5, 4, 4})));
        }).find("[packed_conv2d] input [1, 5, 4, 4] has 5 channels") == 0);
  CHECK(message_of([&] {
          static_cast<void>(packed(Tensor::zeros({1, 4, 4, 4}), Tensor::zeros({1, 8, 3, 3})));
        }).find("residual has shape [1, 8, 3, 3], expected that of the result, [1, 8, 2, 2]") != std::string::npos);
  CHECK(message_of([&] {
          static_cast<void>(packed(Tensor::zeros({1, 4, 4, 4}).set_requires_grad(true)));
        }).find("packed weights are for inference") != std::string::npos);
  CHECK(message_of([&] {
          PackedConv2d(w.copy_as(DType::kBF16), {}, {}, Activation::kNone, DType::kBF16);
        }).find("weight is bf16, expected f32") != std::string::npos);
  CHECK(message_of([&] {
          PackedConv2d(w, Tensor::zeros({7}), {}, Activation::kNone, DType::kF32);
        }).find("bias has shape [7]") != std::string::npos);
  CHECK(message_of([&] {
          static_cast<void>(PackedConv2d()(Tensor::zeros({1, 4, 4, 4})));
        }).find("without weights") != std::string::npos);
  NoGradGuard no_grad;
  CHECK(packed(Tensor::zeros({1, 4, 4, 4}).set_requires_grad(true)).shape() == Shape({1, 8, 2, 2}));
}

TEST_SUITE_END();
