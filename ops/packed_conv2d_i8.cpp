// What this is: see ops/packed_conv2d_i8.h.
#include "ops/packed_conv2d_i8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "ops/conv2d_i8_kernels.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "packed_conv2d_i8";
constexpr std::int64_t kMostProducts = std::numeric_limits<std::int32_t>::max() / (255 * 127);

void check_finite(const char* what, const Tensor& t) {
  const auto* values = t.data<float>();
  const auto* bad = std::find_if(values, values + t.numel(), [](float v) { return !std::isfinite(v); });
  LIMBECK_CHECK(bad == values + t.numel(), kName, "the {} holds {}, expected finite numbers", what, *bad);
}

}  // namespace

PackedConv2dI8::PackedConv2dI8(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act,
                               Quantisation x, std::optional<Quantisation> y, Quantisation residual)
    : options_(options), act_(act), x_(x), residual_(residual), y_(y) {
  LIMBECK_CHECK(w.defined() && w.ndim() == 4 && options.groups >= 1 && w.size(0) % options.groups == 0 && w.numel() > 0,
                kName, "got a weight of {} with {} groups, expected [O,I/groups,KH,KW]",
                w.defined() ? w.shape().to_string() : "nothing", options.groups);
  LIMBECK_CHECK(w.dtype() == DType::kF32 && (!b.defined() || b.dtype() == DType::kF32), kName,
                "weight is {}, expected f32 (bias too)", name_of(w.dtype()));
  LIMBECK_CHECK(!b.defined() || b.shape() == Shape({w.size(0)}), kName,
                "bias has shape {}, expected [{}] for weight {}", b.shape(), w.size(0), w.shape());
  const std::int64_t products = w.numel() / w.size(0);
  LIMBECK_CHECK(products <= kMostProducts, kName, "a result is the sum of {} products, 32 bits hold {}", products,
                kMostProducts);
  check_quantisation(kName, x);
  check_quantisation(kName, residual);
  if (y) check_quantisation(kName, *y);
  shape_ = w.shape();
  set_scales(w.detach().dense(), b.defined() ? b.detach().dense() : Tensor());
}

/// Weights in 8 bits, and the numbers that the results are computed with.
void PackedConv2dI8::set_scales(const Tensor& w, const Tensor& b) {
  check_finite("weight", w);
  if (b.defined()) check_finite("bias", b);
  const auto filters = static_cast<std::size_t>(shape_[0]);
  const auto size = static_cast<std::size_t>(w.numel()) / filters;
  const double y_scale = y_ ? static_cast<double>(y_->scale) : 1.0;
  weights_.resize(static_cast<std::size_t>(w.numel()));
  for (std::size_t o = 0; o < filters; ++o) {
    const float* row = w.data<float>() + o * size;
    float most = 0.0F;
    for (std::size_t i = 0; i < size; ++i) most = std::max(most, std::abs(row[i]));
    const double scale = most > 0 ? static_cast<double>(most) / 127 : 1.0;
    for (std::size_t i = 0; i < size; ++i) {
      weights_[o * size + i] = static_cast<std::int8_t>(std::lrint(static_cast<double>(row[i]) / scale));
    }
    multiplier_.push_back(static_cast<float>(static_cast<double>(x_.scale) * scale / y_scale));
    bias_.push_back(b.defined() ? static_cast<float>(static_cast<double>(b.data<float>()[o]) / y_scale) : 0.0F);
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
