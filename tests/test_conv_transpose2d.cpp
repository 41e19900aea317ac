// conv_transpose2d: known answers, sizes, the adjoint of conv2d, messages.
#include "ops/conv_transpose2d.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/autograd.h"
#include "ops/conv2d.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::message_of;

TEST_SUITE_BEGIN("conv_transpose2d");

namespace {

using test::random_normal;

double dot(const Tensor& a, const Tensor& b) {
  const auto u = a.to_vector<double>();
  const auto v = b.to_vector<double>();
  double sum = 0.0;
  for (std::size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
  return sum;
}

}  // namespace

TEST_CASE("2x2 stride 2 by hand") {
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const DType wide = type == DType::kF64 ? DType::kF64 : DType::kF32;
    const Tensor x = Tensor::from(std::vector<double>{1, 2}, {1, 1, 1, 2}).copy_as(type);
    const Tensor w = Tensor::from(std::vector<double>{1, 2, 3, 4}, {1, 1, 2, 2}).copy_as(wide);
    const Tensor b = Tensor::full({1}, 10.0, wide);
    const Tensor y = ops::conv_transpose2d(x, w, b, {.stride = {2, 2}});
    CHECK(y.dtype() == type);
    CHECK(y.shape() == Shape({1, 1, 2, 4}));
    CHECK(y.to_vector<double>() == std::vector<double>{11, 12, 12, 14, 13, 14, 16, 18});
  }
}

TEST_CASE("3x3 stride 2 restores the sizes it came from") {
  // The autoencoder's encoder halves 129 -> 65 -> 33; its decoder has to come back exactly.
  const Tensor w = Tensor::zeros({2, 2, 3, 3});
  const auto up = [&](std::int64_t size, std::int64_t extra) {
    return ops::conv_transpose2d(Tensor::zeros({1, 2, size, size}), w, {},
                                 {.stride = {2, 2}, .padding = {1, 1}, .output_padding = {extra, extra}})
        .size(2);
  };
  CHECK(up(17, 0) == 33);
  CHECK(up(33, 0) == 65);
  CHECK(up(64, 1) == 128);
}

TEST_CASE("it is the adjoint of conv2d") {
  // <conv(u), v> = <u, conv_transpose(v)> with the same weights
  Generator g(2);
  const Tensor u = random_normal(g, {2, 17, 9, 8}).copy_as(DType::kF32);
  const Tensor w = random_normal(g, {21, 17, 3, 3}).copy_as(DType::kF32);
  const Tensor conv = ops::conv2d(u, w, {}, {.stride = {2, 2}, .padding = {1, 1}});
  const Tensor v = random_normal(g, conv.shape()).copy_as(DType::kF32);
  const Tensor back = ops::conv_transpose2d(v, w, {}, {.stride = {2, 2}, .padding = {1, 1}, .output_padding = {0, 1}});
  REQUIRE(back.shape() == u.shape());
  CHECK(dot(conv, v) == doctest::Approx(dot(u, back)).epsilon(1e-4));
}

TEST_CASE("messages") {
  const Tensor x = Tensor::zeros({1, 4, 3, 3});
  const auto call = [&](const Shape& w, const ops::ConvTranspose2dOptions& options) {
    return message_of([&] { static_cast<void>(ops::conv_transpose2d(x, Tensor::zeros(w), {}, options)); });
  };
  CHECK(call({5, 4, 3, 3}, {}).find("[conv_transpose2d] input [1, 4, 3, 3] has 4 channels") == 0);
  CHECK(call({4, 4, 3, 3}, {.stride = {2, 2}, .output_padding = {2, 0}}).find("got output_padding 2") !=
        std::string::npos);
  CHECK(call({4, 4, 1, 1}, {.padding = {2, 2}}).find("leave nothing") != std::string::npos);
  CHECK(call({4, 4, 3, 3}, {.groups = 3}).find("do not divide into 3 groups") != std::string::npos);
}

TEST_SUITE_END();
