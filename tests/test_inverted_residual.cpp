// PackedInvertedResidual against the composition of its convolutions in f64, on the matrix units and without them.
#include "ops/inverted_residual.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv2d_engine.h"
#include "tests/harness/conv_problem.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;

TEST_SUITE_BEGIN("inverted_residual");

namespace {

using ops::Activation;
using ops::Conv2dOptions;
using ops::F32Math;
using ops::PackedConv2d;
using ops::PackedInvertedResidual;
using test::relative_error;
using test::rounded_normal;
using test::rounded_weights;

constexpr double kGain = 1.5;  // of each convolution: ReLU halves

struct Layer {
  Tensor w, b;  // f64
  Conv2dOptions options;
  Activation act = Activation::kNone;
  [[nodiscard]] PackedConv2d packed(DType compute, F32Math math) const {
    return {w.copy_as(DType::kF32), b.defined() ? b.copy_as(DType::kF32) : b, options, act, compute, math};
  }
  [[nodiscard]] Tensor run(const Tensor& x, const Tensor& residual = {}) const {
    return test::conv_truth(x, w, b, residual, options, act);
  }
};

struct Problem {
  const char* label;
  Shape x;                     // C is what widen reads, or the filter where there is none
  std::optional<Shape> widen;  // kernel [O,I,KH,KW]
  std::int64_t wide, kernel_h, kernel_w;
  std::int64_t stride = 1, dilation = 1;
  std::int64_t out = 24;
  bool residual = false, bias = true;
  std::int64_t padding = -1;  // -1: "same"
};

const Problem kProblems[] = {
    {"MobileNetV2", {2, 24, 33, 40}, Shape{144, 24, 1, 1}, 144, 3, 3, 1, 1, 24, true},
    {"32 channels in place", {1, 32, 16, 32}, Shape{192, 32, 1, 1}, 192, 3, 3, 1, 1, 32, true},
    {"stride 2", {2, 16, 31, 29}, Shape{96, 16, 1, 1}, 96, 3, 3, 2},
    {"stride 2 of an even map", {1, 16, 32, 64}, Shape{96, 16, 1, 1}, 96, 3, 3, 2, 1, 40},
    {"rows too long for a ring of panels", {1, 16, 21, 300}, Shape{80, 16, 1, 1}, 80, 3, 3},
    {"and stride 2", {1, 16, 22, 301}, Shape{96, 16, 1, 1}, 96, 3, 3, 2},
    {"dilation 2", {1, 160, 16, 16}, Shape{320, 160, 1, 1}, 320, 3, 3, 1, 2, 160, true},
    {"dilation 12", {1, 32, 16, 16}, Shape{64, 32, 1, 1}, 64, 3, 3, 1, 12},
    {"5x5", {1, 24, 20, 19}, Shape{72, 24, 1, 1}, 72, 5, 5},
    {"5x3, stride 2, padding 0", {1, 24, 20, 19}, Shape{72, 24, 1, 1}, 72, 5, 3, 2, 1, 24, false, true, 0},
    {"wide padding", {1, 24, 9, 11}, Shape{40, 24, 1, 1}, 40, 3, 3, 1, 1, 24, false, true, 4},
    {"few wide channels", {1, 8, 30, 40}, Shape{8, 8, 1, 1}, 8, 3, 3, 1, 1, 3},
    {"channels that fill no vector", {2, 11, 13, 17}, Shape{37, 11, 1, 1}, 37, 3, 3, 1, 1, 11, true},
    {"one pixel", {1, 16, 1, 1}, Shape{48, 16, 1, 1}, 48, 3, 3, 1, 1, 16, true},
    {"one column", {1, 16, 70, 1}, Shape{48, 16, 1, 1}, 48, 3, 3},
    {"no biases", {1, 24, 16, 16}, Shape{48, 24, 1, 1}, 48, 3, 3, 1, 1, 24, true, false},
    {"first layer before it", {2, 3, 64, 66}, Shape{32, 3, 3, 3}, 32, 3, 3, 1, 1, 16},
    {"first layer, long rows", {1, 3, 40, 500}, Shape{32, 3, 3, 3}, 32, 3, 3, 1, 1, 16},
    {"first layer, one channel", {1, 1, 30, 31}, Shape{16, 1, 3, 3}, 16, 3, 3, 2, 1, 16},
    {"separable", {2, 64, 33, 20}, std::nullopt, 64, 3, 3, 1, 1, 64, true},
    {"separable, many channels, stride 2", {1, 330, 17, 19}, std::nullopt, 330, 3, 3, 2, 1, 70},
    {"separable, long rows", {1, 40, 12, 400}, std::nullopt, 40, 3, 3},
};

struct Layers {
  std::optional<Layer> widen;
  Layer filter, narrow;
  [[nodiscard]] PackedInvertedResidual packed(DType compute, F32Math math) const {
    return {widen ? std::optional(widen->packed(compute, math)) : std::nullopt, filter.packed(compute, math),
            narrow.packed(compute, math)};
  }
};

Layers make_layers(const Problem& p, Activation act, Generator& g) {
  const auto bias = [&](std::int64_t n) { return p.bias ? rounded_normal(g, {n}) : Tensor(); };
  Layers layers;
  if (p.widen) {
    const bool first = (*p.widen)[2] > 1;
    layers.widen = Layer{rounded_weights(g, *p.widen, kGain), bias(p.wide),
                         first ? Conv2dOptions{.stride = {2, 2}, .padding = {1, 1}} : Conv2dOptions{}, act};
  }
  const auto pad = [&](std::int64_t kernel) { return p.padding >= 0 ? p.padding : kernel / 2 * p.dilation; };
  layers.filter = {rounded_weights(g, {p.wide, 1, p.kernel_h, p.kernel_w}, kGain),
                   bias(p.wide),
                   {.stride = {p.stride, p.stride},
                    .padding = {pad(p.kernel_h), pad(p.kernel_w)},
                    .dilation = {p.dilation, p.dilation},
                    .groups = p.wide},
                   act};
  layers.narrow = {rounded_weights(g, {p.out, p.wide, 1, 1}, kGain), bias(p.out), {}, Activation::kNone};
  return layers;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() &&
         std::memcmp(a.raw_data(), b.raw_data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

/// The result in poisoned memory.
Tensor run(const PackedInvertedResidual& block, const Tensor& x, const Tensor& residual, const Shape& shape) {
  const PoisonGuard poison;
  const Tensor y = Tensor::empty(shape, x.dtype());
  block.run_into(x, residual, y);
  return y;
}

void check(const Problem& p, Activation act, DType compute, F32Math math, double bound) {
  Generator g(1);
  const Layers layers = make_layers(p, act, g);
  if (layers.widen && !PackedInvertedResidual::can_widen(layers.widen->packed(compute, math))) return;
  const Tensor x = rounded_normal(g, p.x);
  const Tensor filtered = layers.filter.run(layers.widen ? layers.widen->run(x) : x);
  const Tensor residual =
      p.residual ? rounded_normal(g, ops::conv2d_output_shape("test", filtered.shape(), layers.narrow.w.shape(), {}))
                 : Tensor();
  const Tensor truth = layers.narrow.run(filtered, residual);
  const PackedInvertedResidual block = layers.packed(compute, math);
  const auto low = [&](const Tensor& t) { return t.defined() ? t.copy_as(compute) : t; };
  const int threads = max_threads();
  set_threads(1);
  const Tensor y = run(block, low(x), low(residual), truth.shape());
  set_threads(3);
  const Tensor again = run(block, low(x), low(residual), truth.shape());
  set_threads(threads);
  CHECK(relative_error(y, truth) < bound);
  CHECK(same_bits(y, again));
}

}  // namespace

TEST_CASE("equals the composition, in poisoned memory, with any number of threads") {
  for (const Problem& p : kProblems) {
    CAPTURE(p.label);
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
      CAPTURE(ops::name_of(act));
      const bool fast = ops::amx_fits({1, 1, 1, 1}, {});
      if (fast) check(p, act, DType::kF32, F32Math::kParts, 2e-5);
      if (fast) check(p, act, DType::kBF16, F32Math::kExact, 2e-2);
      const ops::ConvEngineGuard portable(ops::ConvEngine::kTiles);
      check(p, act, DType::kF32, F32Math::kExact, 1e-5);
    }
  }
}

TEST_CASE("NaN and infinity come out where the convolutions put them") {
  const Problem& p = kProblems[0];
  Generator g(1);
  const Layers layers = make_layers(p, Activation::kRelu6, g);
  const Tensor x = rounded_normal(g, p.x);
  x.data<double>()[5] = std::nan("");
  const Tensor truth = layers.narrow.run(layers.filter.run(layers.widen->run(x)));
  const auto compare = [&](DType compute) {
    const Tensor y = run(layers.packed(compute, F32Math::kExact), x.copy_as(compute), {}, truth.shape());
    const Tensor wide = y.copy_as(DType::kF64);
    std::int64_t nans = 0;
    for (std::int64_t i = 0; i < wide.numel(); ++i) {
      const bool nan = std::isnan(truth.data<double>()[i]);
      nans += nan ? 1 : 0;
      CHECK(std::isnan(wide.data<double>()[i]) == nan);
    }
    CHECK(nans > 0);
  };
  if (ops::amx_fits({1, 1, 1, 1}, {})) compare(DType::kBF16);
  const ops::ConvEngineGuard portable(ops::ConvEngine::kTiles);
  compare(DType::kF32);
}

TEST_CASE("refuses what is no such block, and maps that do not fit") {
  const ops::ConvEngineGuard portable(ops::ConvEngine::kTiles);
  const auto conv = [](const Shape& w, std::int64_t groups = 1) {
    return PackedConv2d(Tensor::full(w, 0.5), {}, {.groups = groups}, Activation::kNone, DType::kF32);
  };
  const PackedConv2d widen = conv({8, 4, 1, 1}), filter = conv({8, 1, 3, 3}, 8), narrow = conv({4, 8, 1, 1});
  using test::check_throws;
  check_throws<Error>([&] { PackedInvertedResidual(widen, widen, narrow); }, {"depthwise", "[8, 4, 1, 1]"});
  check_throws<Error>([&] { PackedInvertedResidual(conv({8, 4, 3, 3}), filter, narrow); }, {"[8, 4, 3, 3]"});
  check_throws<Error>([&] { PackedInvertedResidual(widen, filter, conv({4, 9, 1, 1})); }, {"8 channels in", "9 out"});
  const PackedInvertedResidual block(widen, filter, narrow);
  const auto map = [](const Shape& s, DType t = DType::kF32) { return Tensor::full(s, 1.0, t); };
  const Tensor x = map({1, 4, 6, 7});
  CHECK_NOTHROW(block.run_into(x, {}, map({1, 4, 4, 5})));
  check_throws<Error>([&] { block.run_into(x, {}, map({1, 4, 6, 7})); }, {"[1, 4, 4, 5]", "[1, 4, 6, 7]"});
  check_throws<Error>([&] { block.run_into(x, x, map({1, 4, 4, 5})); }, {"residual", "[1, 4, 4, 5]"});
  check_throws<Error>([&] { block.run_into(map({1, 5, 6, 7}), {}, map({1, 4, 4, 5})); }, {"5"});
  check_throws<Error>([&] { block.run_into(map({1, 4, 6, 7}, DType::kBF16), {}, map({1, 4, 4, 5})); }, {"bf16", "f32"});
}

TEST_CASE("weights packed into given memory give the same numbers, and need all of it") {
  if (!ops::amx_fits({1, 1, 1, 1}, {})) return;
  const Problem& p = kProblems[0];
  Generator g(1);
  const Layers layers = make_layers(p, Activation::kRelu, g);
  const PackedInvertedResidual block = layers.packed(DType::kBF16, F32Math::kExact);
  const PackedInvertedResidual other = layers.packed(DType::kBF16, F32Math::kExact);
  const Tensor x = rounded_normal(g, p.x).copy_as(DType::kBF16);
  const Tensor memory = Tensor::empty({block.packed_bytes()}, DType::kU8);
  block.pack_into(memory);
  CHECK(same_bits(run(block, x, {}, p.x), run(other, x, {}, p.x)));
  const Tensor small = Tensor::empty({block.packed_bytes() - 1}, DType::kU8);
  test::check_throws<Error>([&] { block.pack_into(small); }, {"packed weights", "bytes"});
}

TEST_SUITE_END();
