// Convolution in integers of 8 bits: the fast kernels and the plain loops give the same bits, and both what the formula says.
#include "ops/packed_conv2d_i8.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_i8_kernels.h"
#include "tests/harness/conv_problem.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("packed_conv2d_i8");

namespace {

using ops::Activation;
using ops::Conv2dOptions;
using ops::PackedConv2dI8;
using ops::Quantisation;
using test::ConvProblem;
using test::random_normal;

// The last one means the matrix units where there are some.
constexpr ops::ConvEngine kEngines[] = {ops::ConvEngine::kTiles, ops::ConvEngine::kAuto};

const ConvProblem kProblems[] = {
    {"1x1", {2, 64, 9, 7}, {40, 64, 1, 1}, {}},
    {"1x1, odd channels", {2, 37, 9, 7}, {19, 37, 1, 1}, {}},
    {"1x1, one pixel", {1, 130, 1, 1}, {33, 130, 1, 1}, {}},
    {"1x1, many channels", {1, 320, 8, 9}, {70, 320, 1, 1}, {}},
    {"1x1 stride 2", {1, 33, 9, 8}, {21, 33, 1, 1}, {.stride = {2, 2}}},
    {"first layer", {2, 3, 20, 22}, {16, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}},
    {"first layer 3x3", {1, 3, 21, 23}, {11, 3, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
    {"3x3, odd map", {2, 32, 13, 15}, {48, 32, 3, 3}, {.padding = {1, 1}}},
    {"3x3, more channels", {1, 70, 9, 10}, {34, 70, 3, 3}, {.padding = {1, 1}}},
    {"3x3, one pixel", {1, 32, 1, 1}, {33, 32, 3, 3}, {.padding = {1, 1}}},
    {"3x3, dilation 2", {2, 40, 16, 16}, {36, 40, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
    {"3x3, dilation 12 of a map of 16", {1, 96, 16, 16}, {32, 96, 3, 3}, {.padding = {12, 12}, .dilation = {12, 12}}},
    {"3x3, dilation 18 of a small map", {1, 64, 9, 11}, {20, 64, 3, 3}, {.padding = {18, 18}, .dilation = {18, 18}}},
    {"3x3, padding 0", {1, 32, 8, 9}, {32, 32, 3, 3}, {}},
    {"3x3 stride 2", {2, 72, 11, 10}, {32, 72, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
    {"3x3, a long sum in parts", {1, 1280, 13, 13}, {40, 1280, 3, 3}, {.padding = {1, 1}}},
    {"5x3", {1, 65, 7, 8}, {9, 65, 5, 3}, {.stride = {1, 2}, .padding = {2, 1}}},
    {"9x9 of many channels", {1, 66, 10, 10}, {5, 66, 9, 9}, {.padding = {4, 4}}},
    {"2 groups", {1, 24, 7, 7}, {36, 12, 3, 3}, {.padding = {1, 1}, .groups = 2}},
    {"3 groups of 1x1", {2, 27, 6, 7}, {15, 9, 1, 1}, {.groups = 3}},
    {"2 groups, many channels", {1, 140, 7, 9}, {66, 70, 3, 3}, {.padding = {1, 1}, .groups = 2}},
    {"two filters per channel", {1, 18, 7, 7}, {36, 1, 3, 3}, {.padding = {1, 1}, .groups = 18}},
    {"depthwise", {2, 37, 9, 8}, {37, 1, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 37}},
    {"depthwise, 16 channels", {1, 16, 5, 6}, {16, 1, 3, 3}, {.padding = {1, 1}, .groups = 16}},
    {"depthwise, dilated", {1, 96, 7, 9}, {96, 1, 3, 3}, {.padding = {4, 4}, .dilation = {4, 4}, .groups = 96}},
    {"depthwise 5x5", {1, 20, 11, 6}, {20, 1, 5, 5}, {.padding = {2, 2}, .groups = 20}},
    {"depthwise, one pixel", {1, 8, 1, 1}, {8, 1, 3, 3}, {.padding = {1, 1}, .groups = 8}},
    {"depthwise, more taps than the fast kernel takes", {1, 6, 18, 18}, {6, 1, 17, 17}, {.groups = 6}},
};

Tensor random_bytes(Generator& g, const Shape& shape) {
  const Tensor t = Tensor::empty(shape, DType::kU8);
  const Tensor u = test::random_uniform(g, shape, 0, 256).dense();
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(u.data<double>()[i]);
  return t;
}

Tensor random_f32(Generator& g, const Shape& shape) { return random_normal(g, shape).copy_as(DType::kF32); }

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.to_vector<float>() == b.to_vector<float>();
}

Tensor reference(const PackedConv2dI8& conv, const Tensor& x, const Tensor& residual) {
  const ReferenceGuard guard;
  return conv(x, residual);
}

}  // namespace

TEST_CASE("fast kernels and plain loops give the same bits: types, zero points, residual, activation, threads") {
  const PoisonGuard poison;
  Generator g(1);
  const int threads = max_threads();
  for (const ConvProblem& p : kProblems) {
    CAPTURE(p.label);
    const Tensor x = random_bytes(g, p.x);
    const Tensor w = random_f32(g, p.w), b = random_f32(g, {p.w[0]});
    const Tensor r = random_bytes(g, ops::conv2d_output_shape("test", p.x, p.w, p.options));
    const auto spread = static_cast<float>(std::sqrt(static_cast<double>(p.w[1] * p.w[2] * p.w[3])));
    for (const std::int32_t zero : {0, 117, 255}) {
      const Quantisation in{0.01F, zero}, out{0.012F * spread, 255 - zero}, residual{0.02F * spread, 99};
      for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
        for (const bool bytes : {true, false}) {
          CAPTURE(zero);
          CAPTURE(ops::name_of(act));
          CAPTURE(bytes);
          const bool with_residual = act != Activation::kRelu;
          const PackedConv2dI8 conv(w, b, p.options, act, in, bytes ? std::optional(out) : std::nullopt, residual);
          const Tensor add = with_residual ? r : Tensor();
          const Tensor truth = reference(conv, x, add);
          CHECK(truth.dtype() == (bytes ? DType::kU8 : DType::kF32));
          for (const auto engine : kEngines) {
            const ops::ConvEngineGuard guard(engine);
            CHECK(same_bits(conv(x, add), truth));
            set_threads(3);
            CHECK(same_bits(conv(x, add), truth));
            set_threads(threads);
          }
        }
      }
    }
  }
}

TEST_CASE("the loops compute what the formula says, in f64") {
  Generator g(2);
  for (const ConvProblem& p : kProblems) {
    CAPTURE(p.label);
    const Quantisation in{0.02F, 120}, out{0.05F, 131}, residual{0.03F, 90};
    const Tensor x = random_bytes(g, p.x);
    const Tensor r = random_bytes(g, ops::conv2d_output_shape("test", p.x, p.w, p.options));
    // Weights that 8 bits hold: multiples of a scale per filter, the largest 127 of them.
    const Tensor w = Tensor::empty(p.w);
    const std::int64_t size = w.numel() / p.w[0];
    const Tensor u = test::random_uniform(g, p.w, -127, 127).dense();
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const double scale = 1e-4 * static_cast<double>(1 + i / size % 7);
      const double q = i % size == 0 ? 127 : std::round(u.data<double>()[i]);
      w.data<float>()[i] = static_cast<float>(q * scale);
    }
    const Tensor b = random_f32(g, {p.w[0]});
    const Tensor exact = ops::conv2d(ops::dequantise(x, in).copy_as(DType::kF64), w.copy_as(DType::kF64),
                                     b.copy_as(DType::kF64), p.options);
    const Tensor add = ops::dequantise(r, residual).copy_as(DType::kF64);
    for (std::int64_t i = 0; i < exact.numel(); ++i)
      exact.data<double>()[i] = ops::activate(Activation::kRelu6, exact.data<double>()[i] + add.data<double>()[i]);
    const PackedConv2dI8 to_f32(w, b, p.options, Activation::kRelu6, in, std::nullopt, residual);
    CHECK(test::relative_error(to_f32(x, r), exact) < 2e-6);
    const PackedConv2dI8 to_u8(w, b, p.options, Activation::kRelu6, in, out, residual);
    const Tensor y = ops::dequantise(to_u8(x, r), out);
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      const double held = std::min(exact.data<double>()[i], static_cast<double>(out.high()));
      CHECK(std::abs(static_cast<double>(y.data<float>()[i]) - held) <= 0.5 * 0.05 + 1e-5);
    }
  }
}

TEST_CASE("sums at the ends: the largest products do not overflow, results saturate, ties go to even") {
  // 2048 x 3 x 3 products of 255 and 127: 597 million, where pairs of products in 16 bits would have overflown.
  const Tensor big = Tensor::full({1, 2048, 3, 3}, 255, DType::kU8);
  for (const float sign : {1.0F, -1.0F}) {
    const Tensor w = Tensor::full({17, 2048, 3, 3}, static_cast<double>(sign));
    for (const auto engine : kEngines) {
      const ops::ConvEngineGuard guard(engine);
      const PackedConv2dI8 sums(w, {}, {}, Activation::kNone, {1.0F, 0}, std::nullopt);
      const double expected = 2048.0 * 9 * 255 * static_cast<double>(sign);
      for (const float v : sums(big).to_vector<float>())
        CHECK(static_cast<double>(v) == doctest::Approx(expected).epsilon(1e-6));
      const PackedConv2dI8 bytes(w, {}, {}, Activation::kNone, {1.0F, 0}, Quantisation{1.0F, 100});
      for (const float v : bytes(big).to_vector<float>()) CHECK(v == (sign > 0 ? 255.0F : 0.0F));
    }
  }
  // Results k / 2 for k = -8 .. 8, around zero point 3.
  const Tensor w = Tensor::full({1, 1, 1, 1}, 127.0);  // scale 1, value 127
  const Tensor halves = Tensor::empty({1, 1, 1, 17}, DType::kU8);
  for (int k = 0; k < 17; ++k) halves.data<std::uint8_t>()[k] = static_cast<std::uint8_t>(k);
  const PackedConv2dI8 half(w, {}, {}, Activation::kNone, {1.0F / 254, 8}, Quantisation{1.0F, 3});
  const std::vector<float> even{0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 7, 7};
  // 3 + round(k / 2): -4 -3.5 -3 -2.5 -2 -1.5 -1 -0.5 0 0.5 1 1.5 2 2.5 3 3.5 4
  CHECK(reference(half, halves, {}).to_vector<float>() == even);
  CHECK(half(halves).to_vector<float>() == even);
}

TEST_CASE("padding adds exactly nothing, and ReLU6 ends at 6") {
  const Quantisation in{0.1F, 77};
  const Tensor x = Tensor::full({1, 5, 4, 4}, 77, DType::kU8);  // all zero
  const Tensor w = Tensor::full({3, 5, 3, 3}, 0.3);
  const PackedConv2dI8 conv(w, {}, {.padding = {2, 2}}, Activation::kNone, in, std::nullopt);
  for (const float v : conv(x).to_vector<float>()) CHECK(v == 0.0F);
  const Tensor full = Tensor::full({1, 5, 4, 4}, 255, DType::kU8);
  const Quantisation out{0.047F, 0};
  const PackedConv2dI8 clipped(w, {}, {}, Activation::kRelu6, in, out);
  for (const float v : clipped(full).to_vector<float>()) CHECK(v == std::round(6.0F / 0.047F));
}

TEST_CASE("quantise and dequantise: rounding, ends, NaN, types; ranges") {
  const Quantisation q{0.5F, 10};
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{0, 0.25F, 0.75F, -0.25F, 1.1F, -5, -5.3F, 122.5F, 900, -kInfinity, kInfinity, kNaN};
  const std::vector<float> bytes{10, 10, 12, 10, 12, 0, 0, 255, 255, 0, 255, 0};
  const Tensor x = Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  CHECK(ops::quantise(x, q).to_vector<float>() == bytes);
  const Tensor back = ops::dequantise(ops::quantise(x, q), q);
  CHECK(back.to_vector<float>()[4] == 1.0F);
  CHECK(back.to_vector<float>()[7] == 122.5F);
  CHECK(ops::quantise(x.copy_as(DType::kBF16), q).to_vector<float>()[5] == 0.0F);
  // What stands for a number stands for it again.
  for (const Quantisation& each : {q, Quantisation{0.37F, 0}, Quantisation{1e-3F, 255}}) {
    const Tensor all = Tensor::empty({256}, DType::kU8);
    for (int i = 0; i < 256; ++i) all.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
    CHECK(same_bits(ops::quantise(ops::dequantise(all, each), each), all));
  }

  CHECK(ops::quantisation_of(-1, 4) == Quantisation{static_cast<float>(5.0 / 255), 51});
  CHECK(ops::quantisation_of(2, 4).zero == 0);  // zero is always inside
  CHECK(ops::quantisation_of(-4, -2).zero == 255);
  CHECK(ops::quantisation_of(0, 0) == Quantisation{});
  CHECK(contains(message_of([] { static_cast<void>(ops::quantisation_of(1, kNaN)); }), "finite"));
  CHECK(contains(message_of([&] { static_cast<void>(ops::quantise(x, {0.0F, 1})); }), "scale 0 and zero 1"));
  CHECK(contains(message_of([&] { static_cast<void>(ops::quantise(x, {1.0F, 256})); }), "zero 256"));
  CHECK(contains(message_of([&] { static_cast<void>(ops::dequantise(x, q)); }), "expected u8"));
}

TEST_CASE("the steady state asks the system for no memory") {
  Generator g(4);
  const PackedConv2dI8 conv(random_f32(g, {64, 64, 3, 3}), {}, {.padding = {1, 1}}, Activation::kRelu, {1, 0},
                            Quantisation{1, 0});
  const Tensor x = random_bytes(g, {2, 64, 20, 20});
  for (int i = 0; i < 2; ++i) static_cast<void>(conv(x));
  const auto before = CpuAllocator::get().stats().system_allocations;
  for (int i = 0; i < 5; ++i) static_cast<void>(conv(x));
  CHECK(CpuAllocator::get().stats().system_allocations == before);
}

TEST_CASE("what does not fit is refused by name") {
  const Tensor w = Tensor::full({4, 3, 1, 1}, 0.5);
  const auto make = [&](const Tensor& weight, const Tensor& bias, Quantisation x = {}) {
    return message_of([&] { PackedConv2dI8(weight, bias, {}, Activation::kNone, x, Quantisation{}); });
  };
  CHECK(contains(make(w.copy_as(DType::kBF16), {}), "bf16"));
  CHECK(contains(make(w, Tensor::full({3}, 1)), "[3]"));
  CHECK(contains(make(Tensor::full({4, 3, 1, 1}, std::numeric_limits<double>::infinity()), {}), "inf"));
  CHECK(contains(make(w, Tensor::full({4}, std::numeric_limits<double>::quiet_NaN())), "nan"));
  CHECK(contains(make(w, {}, {-1.0F, 0}), "scale -1"));
  CHECK(contains(make(Tensor::full({1, 8192, 3, 3}, 1), {}), "66311"));
  const auto packed = [&](const std::function<void(ops::FiltersI8&)>& damage) {
    ops::FiltersI8 filters = ops::filters_i8(w, {});
    damage(filters);
    return message_of([&] { PackedConv2dI8(filters, {}, Activation::kNone, {}, Quantisation{}); });
  };
  CHECK(contains(packed([](auto& f) { f.values[3] = -128; }), "holds -128"));
  CHECK(contains(packed([](auto& f) { f.values.pop_back(); }), "11 values"));
  CHECK(contains(packed([](auto& f) { f.scale[1] = 0; }), "scale 0"));
  CHECK(contains(packed([](auto& f) { f.bias.clear(); }), "0 numbers of bias"));
  CHECK(contains(packed([](auto& f) { f.shape = {4, 3}; }), "[4, 3]"));
  const PackedConv2dI8 conv(w, {}, {}, Activation::kNone, {}, Quantisation{});
  CHECK(contains(message_of([&] { static_cast<void>(conv(Tensor::full({1, 3, 2, 2}, 1.0))); }), "expected u8"));
  const Tensor x = Tensor::full({1, 3, 2, 2}, 1, DType::kU8);
  CHECK(contains(message_of([&] { static_cast<void>(conv(x, x)); }), "[1, 4, 2, 2]"));
  CHECK(contains(message_of([&] { static_cast<void>(PackedConv2dI8()(x)); }), "without weights"));
}

TEST_SUITE_END();
