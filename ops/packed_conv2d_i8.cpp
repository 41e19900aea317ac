// What this is: see ops/packed_conv2d_i8.h.
#include "ops/packed_conv2d_i8.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "core/dispatch.h"
#include "ops/conv2d_i8_kernels.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "packed_conv2d_i8";
constexpr float kSmallest = 1e-30F;  // of the largest weight of a filter; a smaller one is a filter of zeros
constexpr std::int64_t kMostProducts = std::numeric_limits<std::int32_t>::max() / (255 * 127);

void check_finite(const char* what, std::span<const float> values) {
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  LIMBECK_CHECK(bad == values.end(), kName, "the {} holds {}, expected finite numbers", what, *bad);
}

std::span<const float> floats_of(const Tensor& t) { return {t.data<float>(), static_cast<std::size_t>(t.numel())}; }

void check(const FiltersI8& f) {
  const auto filters = static_cast<std::size_t>(f.shape.size() == 4 ? f.shape[0] : 0);
  LIMBECK_CHECK(filters > 0 && f.values.size() == static_cast<std::size_t>(f.shape.numel()) &&
                    f.scale.size() == filters && f.bias.size() == filters,
                kName, "{} values, {} scales and {} numbers of bias for filters {}", f.values.size(), f.scale.size(),
                f.bias.size(), f.shape);
  LIMBECK_CHECK(std::find(f.values.begin(), f.values.end(), std::int8_t{-128}) == f.values.end(), kName,
                "the weight holds -128, expected -127 to 127");
  for (const float scale : f.scale)
    LIMBECK_CHECK(std::isfinite(scale) && scale > 0, kName, "a filter has scale {}, expected more than 0", scale);
  check_finite("bias", f.bias);
}

}  // namespace

FiltersI8 filters_i8(const Tensor& w, const Tensor& b) {
  LIMBECK_CHECK(w.defined() && w.ndim() == 4 && w.numel() > 0, kName, "got a weight of {}, expected [O,I/groups,KH,KW]",
                w.defined() ? w.shape().to_string() : "nothing");
  LIMBECK_CHECK(w.dtype() == DType::kF32 && (!b.defined() || b.dtype() == DType::kF32), kName,
                "weight is {}, expected f32 (bias too)", name_of(w.dtype()));
  LIMBECK_CHECK(!b.defined() || b.shape() == Shape({w.size(0)}), kName,
                "bias has shape {}, expected [{}] for weight {}", b.shape(), w.size(0), w.shape());
  const Tensor dense = w.detach().dense();
  check_finite("weight", floats_of(dense));
  const auto filters = static_cast<std::size_t>(w.size(0));
  const std::size_t size = static_cast<std::size_t>(w.numel()) / filters;
  FiltersI8 f{w.shape(), std::vector<std::int8_t>(filters * size), {}, std::vector<float>(filters, 0.0F)};
  for (std::size_t o = 0; o < filters; ++o) {
    const float* row = dense.data<float>() + o * size;
    float most = 0.0F;
    for (std::size_t i = 0; i < size; ++i) most = std::max(most, std::abs(row[i]));
    // Below that, rounding to the smallest floats would make the scale zero or the quotients too large.
    const float scale = most > kSmallest ? most / 127.0F : 1.0F;
    for (std::size_t i = 0; i < size; ++i) {
      f.values[o * size + i] =
          static_cast<std::int8_t>(std::lrint(static_cast<double>(row[i]) / static_cast<double>(scale)));
    }
    f.scale.push_back(scale);
  }
  if (b.defined()) {
    const Tensor bias = b.detach().dense();
    std::copy_n(bias.data<float>(), filters, f.bias.begin());
    check_finite("bias", f.bias);
  }
  return f;
}

PackedConv2dI8::PackedConv2dI8(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act,
                               Quantisation x, std::optional<Quantisation> y, Quantisation residual)
    : PackedConv2dI8(filters_i8(w, b), options, act, x, y, residual) {}

PackedConv2dI8::PackedConv2dI8(const FiltersI8& filters, const Conv2dOptions& options, Activation act, Quantisation x,
                               std::optional<Quantisation> y, Quantisation residual)
    : shape_(filters.shape), options_(options), act_(act), x_(x), residual_(residual), y_(y), weights_(filters.values) {
  check(filters);
  LIMBECK_CHECK(options.groups >= 1 && shape_[0] % options.groups == 0, kName,
                "got a weight of {} with {} groups, expected [O,I/groups,KH,KW]", shape_, options.groups);
  const std::int64_t products = shape_.numel() / shape_[0];
  LIMBECK_CHECK(products <= kMostProducts, kName, "a result is the sum of {} products, 32 bits hold {}", products,
                kMostProducts);
  check_quantisation(kName, x);
  check_quantisation(kName, residual);
  if (y) check_quantisation(kName, *y);
  const double y_scale = y_ ? static_cast<double>(y_->scale) : 1.0;
  for (std::size_t o = 0; o < filters.scale.size(); ++o) {
    const double scale = static_cast<double>(x_.scale) * static_cast<double>(filters.scale[o]);
    multiplier_.push_back(static_cast<float>(scale / y_scale));
    bias_.push_back(static_cast<float>(static_cast<double>(filters.bias[o]) / y_scale));
  }
}

bool PackedConv2dI8::depthwise() const noexcept {
  return options_.groups > 1 && shape_[1] == 1 && shape_[0] == options_.groups && depthwise_i8_fits(shape_);
}

Tensor PackedConv2dI8::operator()(const Tensor& x_any, const Tensor& residual_any) const {
  LIMBECK_CHECK(defined(), kName, "called without weights");
  LIMBECK_CHECK(x_any.defined() && x_any.dtype() == DType::kU8 && x_any.device().is_cpu(), kName,
                "got {} for the input, expected u8 on the CPU", x_any.defined() ? x_any.describe() : "nothing");
  const Shape y_shape = conv2d_output_shape(kName, x_any.shape(), shape_, options_);
  LIMBECK_CHECK(!residual_any.defined() || (residual_any.dtype() == DType::kU8 && residual_any.shape() == y_shape),
                kName, "residual is {}, expected u8 of the result's shape, {}", residual_any.describe(), y_shape);
  const Tensor x = x_any.dense();
  const Tensor residual = residual_any.defined() ? residual_any.dense() : Tensor();
  const Tensor y = Tensor::empty(y_shape, result_type());

  const float y_scale = y_ ? y_->scale : 1.0F;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ResultI8 result{multiplier_.data(),
                  bias_.data(),
                  residual_.scale / y_scale,
                  residual_.zero,
                  act_ == Activation::kNone ? -kInfinity : 0.0F,
                  act_ == Activation::kRelu6 ? 6.0F / y_scale : kInfinity,
                  y_ ? y_->zero : 0};
  if (y_) {
    result.low = std::max(result.low, static_cast<float>(-y_->zero));
    result.high = std::min(result.high, static_cast<float>(255 - y_->zero));
  }
  const ConvI8 job{x.view(), residual.defined() ? residual.view() : TensorView{}, y.view(), shape_, options_, x_.zero,
                   result};
  if (ReferenceGuard::active()) {
    conv2d_i8_ref(job, weights_.data());
    return y;
  }
  if (!packed_.defined()) {
    const std::size_t bytes =
        depthwise() ? depthwise_i8_packed_bytes(shape_) : conv2d_i8_packed_bytes(shape_, options_);
    packed_ = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8);
    depthwise() ? depthwise_i8_pack(weights_.data(), shape_, packed_.raw_data())
                : conv2d_i8_pack(weights_.data(), shape_, options_, packed_.raw_data());
  }
  depthwise() ? depthwise_i8_cpu(job, packed_.raw_data()) : conv2d_i8_cpu(job, packed_.raw_data());
  return y;
}

}  // namespace limbeck::ops
