// What this is: see ops/packed_conv2d.h.
#include "ops/packed_conv2d.h"

#include <array>
#include <cstdlib>
#include <string_view>

#include "core/autograd.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_kernels.h"
#include "ops/copy.h"
#include "ops/winograd.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "packed_conv2d";

Tensor bytes(std::size_t count) { return Tensor::empty({static_cast<std::int64_t>(count)}, DType::kU8); }

TensorView view_or_none(const Tensor& t) { return t.defined() ? t.view() : TensorView{}; }

}  // namespace

F32Math f32_math_setting() {
  const char* set = std::getenv("LIMBECK_F32");
  const std::string_view word = set != nullptr ? set : "parts";
  if (word == "exact") return F32Math::kExact;
  if (word != "parts") fail<ConfigError>("LIMBECK_F32", "is '{}', expected exact or parts", word);
  return F32Math::kParts;
}

PackedConv2d::PackedConv2d(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act,
                           DType compute, F32Math math)
    : options_(options), act_(act), compute_(compute), math_(math) {
  LIMBECK_CHECK(is_floating(compute), kName, "compute type {}, expected f32 or bf16", name_of(compute));
  check_float(kName, w);
  LIMBECK_CHECK(w.ndim() == 4 && options.groups >= 1 && w.size(0) % options.groups == 0, kName,
                "got a weight of shape {} with {} groups, expected [O,I/groups,KH,KW]", w.shape(), options.groups);
  const DType expected = compute == DType::kF64 ? DType::kF64 : DType::kF32;
  LIMBECK_CHECK(w.dtype() == expected && (!b.defined() || b.dtype() == expected), kName,
                "weight is {}, expected {} (bias too) to compute in {}", name_of(w.dtype()), name_of(expected),
                name_of(compute));
  LIMBECK_CHECK(!b.defined() || b.shape() == Shape({w.size(0)}), kName,
                "bias has shape {}, expected [{}] for weight {}", b.shape(), w.size(0), w.shape());
  w_ = w.detach().dense();
  if (b.defined()) b_ = b.detach().dense();
}

Tensor PackedConv2d::operator()(const Tensor& x, const Tensor& residual) const {
  LIMBECK_CHECK(defined(), kName, "called without weights");
  check_float(kName, x);
  const Tensor y = Tensor::empty(conv2d_output_shape(kName, x.shape(), w_.shape(), options_), compute_, x.device());
  run_into(x, residual, y);
  return y;
}

void PackedConv2d::run_into(const Tensor& x_any, const Tensor& residual_any, const Tensor& y) const {
  LIMBECK_CHECK(defined(), kName, "called without weights");
  check_float(kName, x_any);
  LIMBECK_CHECK(!should_record({&x_any, &residual_any}), kName,
                "the input requires a gradient, but packed weights are for inference; use conv2d or a NoGradGuard");
  const Shape y_shape = conv2d_output_shape(kName, x_any.shape(), w_.shape(), options_);
  LIMBECK_CHECK(!residual_any.defined() || residual_any.shape() == y_shape, kName,
                "residual has shape {}, expected that of the result, {}", residual_any.shape(), y_shape);
  LIMBECK_CHECK(y.defined() && y.shape() == y_shape && y.dtype() == compute_ && y.is_dense(), kName,
                "got {} for the result, expected a dense {} {}", y.defined() ? y.describe() : "nothing",
                name_of(compute_), y_shape);
  if (x_any.device().is_meta()) return;
  const Tensor x = cast(x_any, compute_).dense();
  const Tensor residual = residual_any.defined() ? cast(residual_any, compute_).dense() : Tensor();
  LIMBECK_CHECK(x.device().is_cpu(), kName, "no kernel for {}", x.device().to_string());
  y.bump_version();
  if (use_reference(compute_)) {
    y.copy_(reference(x, residual, y_shape));
  } else if (depthwise()) {
    pack_depthwise();
    run_depthwise(x.view(), view_or_none(residual), {0, x.size(2), 0}, y.view());
  } else if (const ConvEngine engine = ConvEngineGuard::engine();
             on_matrix_units() && (engine == ConvEngine::kAuto || engine == ConvEngine::kAmx)) {
    pack_amx();
    run_amx(x.view(), view_or_none(residual), y.view());
  } else if (use_onednn_conv(compute_) || prefers_onednn(x.shape(), y.shape())) {
    run_onednn(x.view(), view_or_none(residual), y.view());
  } else {
    run_tiles(x.view(), view_or_none(residual), y.view());
  }
}

// Measured on Sapphire Rapids: in f32, oneDNN's code for these processors takes 0.5 to 0.65 of the time of the tiles, but more than
// Winograd's method.
bool PackedConv2d::prefers_onednn(const Shape& x, const Shape& y) const {
  return ConvEngineGuard::engine() == ConvEngine::kAuto && compute_ == DType::kF32 && has_matrix_units() &&
         !winograd_pays(x, w_.shape(), y, options_);
}

/// The composition of the formula, with the plain loops.
Tensor PackedConv2d::reference(const Tensor& x, const Tensor& residual, const Shape& y_shape) const {
  const DType dtype = compute_ == DType::kF64 ? DType::kF64 : DType::kF32;  // the loops know no bf16
  const Tensor xr = cast(x, dtype);
  const Tensor y = Tensor::empty(y_shape, dtype, x.device());
  kConv2dForward.ref(xr.view(), w_.view(), view_or_none(b_), options_, y.view());
  const Tensor rr = residual.defined() ? cast(residual, dtype) : Tensor();
  visit_reference_dtype(kName, dtype, [&](auto zero) {
    using T = decltype(zero);
    T* values = y.data<T>();
    const T* add = rr.defined() ? rr.data<T>() : nullptr;
    for (std::int64_t i = 0; i < y.numel(); ++i)
      values[i] = activate(act_, values[i] + (add != nullptr ? add[i] : T(0)));
  });
  return cast(y, compute_);
}

bool PackedConv2d::depthwise() const noexcept {
  return options_.groups > 1 && w_.size(1) == 1 && w_.size(0) == options_.groups;
}

void PackedConv2d::pack_depthwise() const {
  if (depthwise_.defined()) return;
  depthwise_ = bytes(static_cast<std::size_t>(w_.numel()) * sizeof(float));
  depthwise_pack(w_.view(), static_cast<float*>(depthwise_.raw_data()));
}

void PackedConv2d::run_depthwise(const TensorView& x, const TensorView& residual, const DepthwiseRows& rows,
                                 const TensorView& y) const {
  depthwise_rows(x, static_cast<const float*>(depthwise_.raw_data()), w_.shape(), view_or_none(b_), residual, act_,
                 options_, rows, y);
}

bool PackedConv2d::takes_rows() const noexcept {
  if (depthwise()) return true;
  const bool pointwise = w_.size(2) * w_.size(3) == 1 && options_.stride == std::array<std::int64_t, 2>{1, 1} &&
                         options_.padding == std::array<std::int64_t, 2>{0, 0};
  const bool tiles = !has_matrix_units() || ConvEngineGuard::engine() == ConvEngine::kTiles;
  return pointwise && options_.groups == 1 && (on_matrix_units() || (compute_ == DType::kF32 && tiles));
}

void PackedConv2d::pack_rows() const {
  if (depthwise()) {
    pack_depthwise();
  } else {
    pack_tiles();
  }
}

void PackedConv2d::run_rows(const TensorView& x, const TensorView& residual, const DepthwiseRows& rows,
                            const TensorView& y) const {
  if (depthwise()) {
    run_depthwise(x, residual, rows, y);
  } else {
    tiles_forward(x, tiles_.raw_data(), w_.shape(), {view_or_none(b_), residual, act_}, options_, y);
  }
}

bool PackedConv2d::on_matrix_units() const noexcept {
  return (compute_ == DType::kBF16 || math_ == F32Math::kParts) && amx_fits(w_.shape(), options_);
}

bool PackedConv2d::in_one_chunk() const noexcept { return on_matrix_units() && amx_in_one_chunk(w_.shape(), options_); }

void PackedConv2d::pack_amx() const {
  if (amx_.defined()) return;
  amx_ = bytes(amx_packed_bytes(w_.shape(), options_, compute_));
  amx_pack(w_.view(), options_, compute_, amx_.raw_data());
}

void PackedConv2d::run_amx(const TensorView& x, const TensorView& residual, const TensorView& y) const {
  amx_forward(x, amx_.raw_data(), w_.shape(), {view_or_none(b_), residual, act_}, options_, y);
}

void PackedConv2d::pack_tiles() const {
  if (tiles_.defined()) return;
  tiles_ = bytes(tiles_packed_bytes(w_.shape(), options_, false, compute_));
  tiles_pack(w_.view(), options_, false, compute_, tiles_.raw_data());
}

void PackedConv2d::run_tiles(const TensorView& x, const TensorView& residual, const TensorView& y) const {
  const ConvEpilogue epilogue{view_or_none(b_), residual, act_};
  if (compute_ == DType::kF32 && winograd_pays(x.shape, w_.shape(), y.shape, options_)) {
    if (!winograd_.defined()) {
      winograd_ = bytes(winograd_packed_bytes(w_.shape()));
      winograd_pack(w_.view(), winograd_.raw_data());
    }
    winograd_forward(x, winograd_.raw_data(), w_.shape(), epilogue, options_, y);
    return;
  }
  pack_tiles();
  tiles_forward(x, tiles_.raw_data(), w_.shape(), epilogue, options_, y);
}

void PackedConv2d::run_onednn(const TensorView& x, const TensorView& residual, const TensorView& y) const {
  const ConvEpilogue epilogue{view_or_none(b_), residual, act_};
  if (!onednn_.defined() || !(onednn_shape_ == x.shape) || onednn_residual_ != residual.defined()) {
    onednn_ = bytes(onednn_packed_bytes(x.shape, w_.shape(), y.shape, epilogue, options_, compute_));
    onednn_pack(x.shape, w_.view(), y.shape, epilogue, options_, compute_, onednn_.raw_data());
    onednn_shape_ = x.shape;
    onednn_residual_ = residual.defined();
  }
  onednn_forward(x, onednn_.raw_data(), w_.shape(), epilogue, options_, y);
}

}  // namespace limbeck::ops
