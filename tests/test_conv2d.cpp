// conv2d and conv_transpose2d share kernels, so both engines and the shapes that stress them are tested here: known
// answers, large and skipped kernels, parity of the engines, autocast, messages.
#include "ops/conv2d.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_tiles.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::message_of;

TEST_SUITE_BEGIN("conv2d");

namespace {

using test::random_normal;
using test::relative_error;

Tensor ramp(const Shape& shape, DType dtype = DType::kF32) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0);
  return Tensor::from(values, shape).copy_as(dtype);
}

struct Gradients {
  Tensor y, gx, gw, gb;
};

Gradients run(const Tensor& x0, const Tensor& w0, const Tensor& b0, const ops::Conv2dOptions& options, DType dtype) {
  const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor x = x0.copy_as(dtype).set_requires_grad(true);
  const Tensor w = w0.copy_as(wide).set_requires_grad(true);
  const Tensor b = b0.copy_as(wide).set_requires_grad(true);
  Gradients g;
  g.y = ops::conv2d(x, w, b, options);
  Generator seed(3);
  backward(g.y, random_normal(seed, g.y.shape()).copy_as(dtype));
  g.gx = x.grad();
  g.gw = w.grad();
  g.gb = b.grad();
  return g;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw_data(), b.raw_data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

}  // namespace

TEST_CASE("2x2 kernel by hand") {
  // x = 0 1 2 / 3 4 5 / 6 7 8;  w = 1 2 / 3 4:  0+2+9+16 = 27, 37 / 57, 67, and bias 1
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const DType wide = type == DType::kF64 ? DType::kF64 : DType::kF32;
    const Tensor x = ramp({1, 1, 3, 3}, type).set_requires_grad(true);
    const Tensor w = Tensor::from(std::vector<double>{1, 2, 3, 4}, {1, 1, 2, 2}).copy_as(wide).set_requires_grad(true);
    const Tensor b = Tensor::full({1}, 1.0, wide).set_requires_grad(true);
    const Tensor y = ops::conv2d(x, w, b);
    CHECK(y.dtype() == type);
    CHECK(y.to_vector<double>() == std::vector<double>{28, 38, 58, 68});
    backward(y, Tensor::full(y.shape(), 1.0, type));
    CHECK(x.grad().to_vector<double>() == std::vector<double>{1, 3, 2, 4, 10, 6, 3, 7, 4});
    CHECK(w.grad().to_vector<double>() == std::vector<double>{8, 12, 20, 24});
    CHECK(w.grad().dtype() == wide);
    CHECK(b.grad().item() == 4.0);
  }
}

TEST_CASE("each tap reads the right pixel") {
  // A kernel with a single one moves the map: output (p,q) = x(p*stride - padding + r*dilation, ...).
  const std::int64_t h = 9;
  const std::int64_t v = 11;
  const Tensor x = ramp({1, 16, h, v}).set_requires_grad(false);
  const ops::Conv2dOptions options{.stride = {2, 3}, .padding = {3, 1}, .dilation = {3, 2}};
  for (std::int64_t r = 0; r < 3; ++r) {
    for (std::int64_t s = 0; s < 2; ++s) {
      const Tensor w = Tensor::zeros({1, 16, 3, 2});
      w.view().at<float>(0, 5, r, s) = 1.0F;
      const Tensor y = ops::conv2d(x, w, {}, options);
      REQUIRE(y.shape() == Shape({1, 1, 5, 4}));
      for (std::int64_t p = 0; p < 5; ++p) {
        for (std::int64_t q = 0; q < 4; ++q) {
          const std::int64_t row = 2 * p - 3 + 3 * r;
          const std::int64_t column = 3 * q - 1 + 2 * s;
          const bool inside = row >= 0 && row < h && column >= 0 && column < v;
          CHECK(y.view().at<float>(0, 0, p, q) == (inside ? x.view().at<float>(0, 5, row, column) : 0.0F));
        }
      }
    }
  }
}

TEST_CASE("atrous kernels on a small map, where most taps are outside") {
  Generator g(11);
  for (const std::int64_t rate : {2, 6, 12, 18}) {
    CAPTURE(rate);
    const Tensor x = random_normal(g, {2, 24, 16, 16}).copy_as(DType::kBF16);
    const Tensor w = random_normal(g, {20, 24, 3, 3}).copy_as(DType::kBF16);
    const Tensor b = random_normal(g, {20});
    const ops::Conv2dOptions options{.padding = {rate, rate}, .dilation = {rate, rate}};
    const Gradients expected = run(x, w, b, options, DType::kF64);
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const double tolerance = type == DType::kF32 ? 1e-5 : 2e-2;
      const Gradients got = run(x, w, b, options, type);
      CHECK(relative_error(got.y, expected.y) < tolerance);
      CHECK(relative_error(got.gx, expected.gx) < tolerance);
      CHECK(relative_error(got.gw, expected.gw) < tolerance);
      CHECK(relative_error(got.gb, expected.gb) < tolerance);
    }
    if (rate == 18) {  // only the centre tap is inside: the other eight get no gradient
      const Tensor gw = run(x, w, b, options, DType::kF32).gw;
      CHECK(gw.view().at<float>(3, 4, 1, 1) != 0.0F);
      CHECK(gw.view().at<float>(3, 4, 0, 1) == 0.0F);
      CHECK(gw.view().at<float>(3, 4, 2, 2) == 0.0F);
    }
  }
}

TEST_CASE("a plan visits every pixel once, sorted so that taps can be skipped") {
  struct Problem {
    std::int64_t size, rate, stride;
    bool transposed;
  };
  for (const Problem p : {Problem{16, 6, 1, false}, {40, 1, 1, false}, {17, 1, 2, true}, {9, 12, 1, true}}) {
    CAPTURE(p.size);
    const std::int64_t source = p.transposed ? (p.size - 1) / p.stride + 1 : p.size;
    const ops::GatherPlan plan({2,
                                p.size,
                                p.size,
                                source,
                                source,
                                {3, 3},
                                {p.stride, p.stride},
                                {p.rate, p.rate},
                                {p.rate, p.rate},
                                p.transposed ? 1 : 0});
    std::vector<int> visits(static_cast<std::size_t>(plan.pixels()));
    std::int64_t multiplied = 0;  // (pixel, tap) pairs, with those that are multiplied by zeros
    std::int64_t needed = 0;
    for (std::int64_t t = 0; t < plan.tile_count(); ++t) {
      const ops::TileSpan tile = plan.tile(t);
      std::array<bool, 9> used{};
      for (std::int64_t i = tile.first; i < tile.first + tile.rows; ++i) {
        const std::int64_t pixel = plan.pixel(i);
        ++visits[static_cast<std::size_t>(pixel)];
        for (std::int64_t tap = 0; tap < 9; ++tap) {
          const std::int64_t row = pixel / p.size % p.size;
          const bool inside = plan.source_row[static_cast<std::size_t>(tap / 3 * p.size + row)] >= 0 &&
                              plan.source_column[static_cast<std::size_t>(tap % 3 * p.size + pixel % p.size)] >= 0;
          used[static_cast<std::size_t>(tap)] |= inside;
          needed += inside ? 1 : 0;
        }
      }
      multiplied += tile.rows * std::count(used.begin(), used.end(), true);
    }
    CHECK(std::count(visits.begin(), visits.end(), 1) == plan.pixels());
    CHECK(static_cast<double>(multiplied) < 1.1 * static_cast<double>(needed));
  }
}

TEST_CASE("tiles and oneDNN agree") {
  Generator g(5);
  struct Problem {
    Shape x, w;
    ops::Conv2dOptions options;
  };
  const Problem problems[] = {
      {{2, 3, 33, 31}, {24, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}},
      {{2, 40, 17, 17}, {72, 40, 3, 3}, {.padding = {1, 1}}},
      {{1, 64, 14, 13}, {33, 64, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
      {{2, 96, 9, 9}, {50, 96, 1, 1}, {}},
      {{2, 32, 9, 9}, {48, 16, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}, .groups = 2}},
  };
  for (const auto& p : problems) {
    CAPTURE(p.w);
    const Tensor x = random_normal(g, p.x);
    const Tensor w = random_normal(g, p.w);
    const Tensor b = random_normal(g, {p.w[0]});
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const double tolerance = type == DType::kF32 ? 1e-5 : 2e-2;
      Gradients tiles;
      Gradients onednn;
      {
        const ops::ConvEngineGuard guard(ops::ConvEngine::kTiles);
        tiles = run(x, w, b, p.options, type);
      }
      {
        const ops::ConvEngineGuard guard(ops::ConvEngine::kOneDnn);
        onednn = run(x, w, b, p.options, type);
      }
      CHECK(relative_error(tiles.y, onednn.y) < tolerance);
      CHECK(relative_error(tiles.gx, onednn.gx) < tolerance);
      CHECK(relative_error(tiles.gw, onednn.gw) < tolerance);
    }
  }
}

TEST_CASE("results do not depend on the number of threads") {
  Generator g(8);
  const Tensor x = random_normal(g, {3, 20, 21, 19});
  const Tensor w = random_normal(g, {37, 20, 3, 3});
  const Tensor b = random_normal(g, {37});
  const ops::Conv2dOptions options{.stride = {2, 1}, .padding = {1, 1}};
  const int before = max_threads();
  set_threads(1);
  const Gradients one = run(x, w, b, options, DType::kF32);
  set_threads(3);
  const Gradients three = run(x, w, b, options, DType::kF32);
  set_threads(before);
  CHECK(same_bits(one.y, three.y));
  CHECK(same_bits(one.gx, three.gx));
  CHECK(same_bits(one.gw, three.gw));
  CHECK(same_bits(one.gb, three.gb));
}

TEST_CASE("autocast computes in bf16 and keeps master gradients in f32") {
  Generator g(9);
  const Tensor x = random_normal(g, {1, 16, 6, 6}).copy_as(DType::kF32).set_requires_grad(true);
  const Tensor w = random_normal(g, {8, 16, 3, 3}).copy_as(DType::kF32).set_requires_grad(true);
  Tensor y;
  {
    const AutocastGuard guard;
    y = ops::conv2d(x, w);
  }
  CHECK(y.dtype() == DType::kBF16);
  backward(y, Tensor::full(y.shape(), 1.0, DType::kBF16));
  CHECK(x.grad().dtype() == DType::kF32);
  CHECK(w.grad().dtype() == DType::kF32);
  CHECK(relative_error(y, ops::conv2d(x, w)) < 2e-2);
}

TEST_CASE("a write to the weights between forward and backward is noticed") {
  const Tensor x = ramp({1, 2, 4, 4}).set_requires_grad(true);
  const Tensor w = ramp({3, 2, 3, 3});
  const Tensor y = ops::conv2d(x, w);
  w.fill_(0.0);
  CHECK(message_of([&] { backward(y, Tensor::full(y.shape(), 1.0)); }).find("[conv2d]") == 0);
}

TEST_CASE("messages name the shapes and the options") {
  const Tensor x = ramp({1, 6, 4, 4});
  const auto conv = [&](const Shape& w, const ops::Conv2dOptions& options, const Tensor& b = {}) {
    return message_of([&] { static_cast<void>(ops::conv2d(x, ramp(w), b, options)); });
  };
  const std::string channels = conv({8, 4, 3, 3}, {});
  CHECK(channels.find("[conv2d] input [1, 6, 4, 4] has 6 channels") == 0);
  CHECK(channels.find("expects 4") != std::string::npos);
  CHECK(conv({7, 3, 1, 1}, {.groups = 2}).find("not divisible by 2 groups") != std::string::npos);
  const std::string large = conv({8, 6, 3, 3}, {.dilation = {4, 1}});
  CHECK(large.find("does not fit into the input [1, 6, 4, 4]") != std::string::npos);
  CHECK(large.find("dilation 4x1") != std::string::npos);
  CHECK(conv({8, 6, 3, 3}, {.stride = {0, 1}}).find("stride and dilation must be at least 1") != std::string::npos);
  CHECK(conv({8, 6, 1, 1}, {}, ramp({7})).find("bias has shape [7], expected [8]") != std::string::npos);
  CHECK(message_of([&] {
          static_cast<void>(ops::conv2d(x, ramp({8, 6, 1, 1}, DType::kBF16)));
        }).find("weight is bf16, expected f32") != std::string::npos);
  CHECK(message_of([&] {
          static_cast<void>(ops::conv2d(ramp({3, 4}), ramp({8, 6, 1, 1})));
        }).find("expected [N,C,H,W]") != std::string::npos);
}

TEST_CASE("shapes alone on the meta device") {
  const Tensor x = Tensor::empty({4, 3, 513, 513}, DType::kF32, kMeta);
  const Tensor w = Tensor::empty({64, 3, 7, 7}, DType::kF32, kMeta);
  const Tensor y = ops::conv2d(x, w, {}, {.stride = {2, 2}, .padding = {3, 3}});
  CHECK(y.shape() == Shape({4, 64, 257, 257}));
  CHECK(y.device().is_meta());
}

TEST_SUITE_END();
