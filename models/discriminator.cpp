// What this is: models/discriminator.h.
#include "models/discriminator.h"

#include <array>

#include "nn/fused.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/softmax.h"

namespace limbeck::models {
namespace {

constexpr std::array<std::int64_t, 4> kWidths{64, 128, 256, 512};
constexpr double kSlope = 0.1;

std::int64_t multiple_of_eight(std::int64_t channels) {
  if (channels < 8 || channels % 8 != 0) {
    fail<ConfigError>("self_attention", "{} channels, expected a multiple of 8", channels);
  }
  return channels;
}

/// [N, C, H, W] as rows of positions [N, HW, C].
Tensor rows(const Tensor& x) {
  return ops::reshape(ops::permute(x, {0, 2, 3, 1}), {x.size(0), x.size(2) * x.size(3), x.size(1)});
}

}  // namespace

SelfAttention::SelfAttention(std::int64_t channels, Generator& g)
    : query_({.in = multiple_of_eight(channels), .out = channels / 8, .kernel = 1}, g),
      key_({.in = channels, .out = channels / 8, .kernel = 1}, g),
      value_({.in = channels, .out = channels, .kernel = 1}, g),
      gamma_(Tensor::empty({1}, DType::kF32, nn::ParameterDevice::current())) {
  gamma_.fill_(0.0);
  register_module("query_conv", query_);
  register_module("key_conv", key_);
  register_module("value_conv", value_);
  register_parameter("gamma", gamma_);
}

Tensor SelfAttention::forward(const Tensor& x) {
  const std::int64_t n = x.size(0);
  const std::int64_t m = x.size(2) * x.size(3);
  const Tensor energy = ops::matmul(rows(query_(x)), rows(key_(x)), false, true);  // [N, M, M]
  const Tensor weights = ops::reshape(ops::softmax(ops::reshape(energy, {n * m, m})), {n, m, m});
  const Tensor mixed = ops::matmul(weights, rows(value_(x)));  // [N, M, C]
  const Tensor map = ops::permute(ops::reshape(mixed, {n, x.size(2), x.size(3), x.size(1)}), {0, 3, 1, 2});
  return ops::add(ops::mul(map, gamma_), x);
}

Discriminator::Discriminator(std::int64_t classes, Generator& g)
    : preprocess_(classes), attention1_(kWidths[2], g), attention2_(kWidths[3], g), last_({.in = kWidths[3], .out = 1, .kernel = 4}, g) {
  register_module("preprocess", preprocess_);
  std::int64_t in = classes;
  for (const std::int64_t out : kWidths) {
    const nn::ConvArgs args{.in = in, .out = out, .kernel = 4, .stride = 2, .padding = 1};
    layers_.push_back(std::make_unique<nn::SpectralNormConv2d>(args, g));
    register_module(fmt::format("l{}.0", layers_.size()), *layers_.back());
    in = out;
  }
  register_module("attn1", attention1_);
  register_module("attn2", attention2_);
  register_module("last.0", last_);
}

Tensor Discriminator::forward(const Tensor& x) {
  LIMBECK_CHECK(x.ndim() == 4 && x.size(2) >= 64 && x.size(3) >= 64, "discriminator",
                "score maps {}, expected [N, K, H, W] with H, W >= 64; resize the maps or use a larger crop", x.shape());
  Tensor y = preprocess_(x);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    y = ops::leaky_relu((*layers_[i])(y), kSlope);
    if (i == 2) y = attention1_(y);
    if (i == 3) y = attention2_(y);
  }
  return last_(y);
}

}  // namespace limbeck::models
