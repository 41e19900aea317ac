// What this is: models/discriminator.h.
#include "models/discriminator.h"

#include <array>

#include "core/autograd.h"
#include "nn/fused.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
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

void check_size(const Tensor& x) {
  LIMBECK_CHECK(x.ndim() == 4 && x.size(2) >= 64 && x.size(3) >= 64, "discriminator",
                "score maps {}, expected [N, K, H, W] with H, W >= 64; resize the maps or use a larger crop",
                x.shape());
}

/// Both halves through one convolution.
Dual convolve(const Dual& x, const Tensor& weight, const Tensor& bias, const ops::Conv2dOptions& options) {
  return {ops::conv2d(x.value, weight, bias, options), ops::conv2d(x.tangent, weight, {}, options)};
}
Dual convolve(const Dual& x, const nn::Conv2d& conv) { return convolve(x, conv.weight(), conv.bias(), conv.options()); }

Dual rows(const Dual& x) { return {rows(x.value), rows(x.tangent)}; }

/// (a b)' = a' b + a b'
Dual multiply(const Dual& a, const Dual& b, bool transpose_b) {
  return {ops::matmul(a.value, b.value, false, transpose_b),
          ops::add(ops::matmul(a.tangent, b.value, false, transpose_b),
                   ops::matmul(a.value, b.tangent, false, transpose_b))};
}

/// The activation's slope at x, a constant: 1 where x > 0, else kSlope. The step is a ramp that no normal f32 number is on.
Tensor leaky_slope(const Tensor& x) {
  const Tensor step = ops::clamp(ops::mul_scalar(x.detach(), 1e38), 0, 1);
  return ops::add_scalar(ops::mul_scalar(step, 1 - kSlope), kSlope);
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

Dual SelfAttention::forward(const Dual& x) {
  const std::int64_t n = x.value.size(0);
  const std::int64_t m = x.value.size(2) * x.value.size(3);
  const Dual energy = multiply(rows(convolve(x, query_)), rows(convolve(x, key_)), true);
  Dual weights;
  weights.value = ops::reshape(ops::softmax(ops::reshape(energy.value, {n * m, m})), {n, m, m});
  const Tensor moved = ops::mul(weights.value, energy.tangent);
  weights.tangent = ops::sub(moved, ops::mul(weights.value, ops::sum(moved, {2}, true)));
  const Dual mixed = multiply(weights, rows(convolve(x, value_)), false);
  const auto finish = [&](const Tensor& rows_of, const Tensor& residual) {
    const Shape map{n, x.value.size(2), x.value.size(3), x.value.size(1)};
    return ops::add(ops::mul(ops::permute(ops::reshape(rows_of, map), {0, 3, 1, 2}), gamma_), residual);
  };
  return {finish(mixed.value, x.value), finish(mixed.tangent, x.tangent)};
}

Discriminator::Discriminator(std::int64_t classes, Generator& g)
    : preprocess_(classes),
      attention1_(kWidths[2], g),
      attention2_(kWidths[3], g),
      last_({.in = kWidths[3], .out = 1, .kernel = 4}, g) {
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
  check_size(x);
  Tensor y = preprocess_(x);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    y = ops::leaky_relu((*layers_[i])(y), kSlope);
    if (i == 2) y = attention1_(y);
    if (i == 3) y = attention2_(y);
  }
  return last_(y);
}

Dual Discriminator::normalise(const Tensor& x, const Tensor& v) const {
  const Shape channels{1, x.size(1), 1, 1};
  const auto per_channel = [&](const Tensor& t) { return ops::mean(t, {0, 2, 3}, true); };
  Dual hat;  // (x - mean) / deviation and its tangent
  {
    const NoGradGuard constant;
    const bool batch = preprocess_.is_training();
    const Tensor mean = batch ? per_channel(x) : ops::reshape(preprocess_.running_mean(), channels);
    const Tensor centred = ops::sub(x, mean);
    const Tensor variance =
        batch ? per_channel(ops::square(centred)) : ops::reshape(preprocess_.running_var(), channels);
    const Tensor deviation = ops::sqrt(ops::add_scalar(variance, preprocess_.eps()));
    hat.value = ops::div(centred, deviation);
    // Mean and deviation of a batch move with x: the part of v along (1, hat) changes nothing.
    hat.tangent = v;
    if (batch) {
      const Tensor along = ops::mul(hat.value, per_channel(ops::mul(hat.value, v)));
      hat.tangent = ops::sub(ops::sub(v, per_channel(v)), along);
    }
    hat.tangent = ops::div(hat.tangent, deviation);
  }
  const Tensor weight = ops::reshape(preprocess_.weight(), channels);
  return {ops::add(ops::mul(hat.value, weight), ops::reshape(preprocess_.bias(), channels)),
          ops::mul(hat.tangent, weight)};
}

Tensor Discriminator::tangent(const Tensor& x, const Tensor& v) {
  LIMBECK_CHECK(x.shape() == v.shape(), "discriminator", "maps {} and a direction {}, expected equal shapes", x.shape(),
                v.shape());
  check_size(x);
  Dual y = normalise(x.detach(), v.detach());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    y = convolve(y, layers_[i]->normalized_weight(), layers_[i]->bias(), layers_[i]->options());
    y = {ops::leaky_relu(y.value, kSlope), ops::mul(y.tangent, leaky_slope(y.value))};
    if (i == 2) y = attention1_.forward(y);
    if (i == 3) y = attention2_.forward(y);
  }
  return ops::conv2d(y.tangent, last_.weight(), {}, last_.options());
}

}  // namespace limbeck::models
