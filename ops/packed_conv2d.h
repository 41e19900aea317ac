// What this is: a convolution of a frozen network: packed weights, bias (usually a folded batch norm), residual and
//   activation fused into the same pass.
// What it is not: differentiable, or aware of later changes of the weights; nn/fused.h renews it when they change.
// Read next: ops/conv2d_engine.h, ops/winograd.h.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/depthwise_kernels.h"

namespace limbeck::ops {

/// What f32 means on processors with matrix units; elsewhere both are the same.
/// Shapes:   none
enum class F32Math : std::uint8_t {
  kExact,  ///< f32 multiply-adds
  kParts  ///< every number as the sum of two bf16 numbers, which hold 16 of its 24 bits; sums are f32. Two to five times faster
};

/// What LIMBECK_F32 in the environment says, "exact" or "parts"; parts if it is not set. Read at every call.
/// Shapes:   none
/// Throws:   ConfigError for another value.
[[nodiscard]] F32Math f32_math_setting();

/// Convolution for inference with packed weights.
/// Formula:  y = act(conv2d(x, w) + b + residual)
/// Shapes:   w [O,I/G,KH,KW]; b [O] or undefined
/// Types:    `compute` is f32 or bf16 (f64 runs the reference); w and b are f32 (f64 for f64).
/// Error:    f32 1e-5, or 2e-5 where a 3x3 kernel runs as Winograd F(4x4); f32 from parts 1e-5; bf16 2e-2; of the largest value.
/// Throws:   shapes or options that conv2d rejects; w or b of another type.
class PackedConv2d {
 public:
  PackedConv2d() = default;
  PackedConv2d(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act, DType compute,
               F32Math math = F32Math::kExact);

  /// Runs the convolution; x and residual are converted to the compute type if they have another one.
  /// Shapes:   x [N,I,H,W]; residual [N,O,OH,OW] or undefined; returns [N,O,OH,OW] in the compute type
  /// Gradient: none. Throws if recording is on and x or residual requires a gradient.
  /// Not for use by two threads at once.
  [[nodiscard]] Tensor operator()(const Tensor& x, const Tensor& residual = {}) const;

  /// The same into `y`, which must not share memory with x.
  /// Shapes:   y [N,O,OH,OW], dense, of the compute type
  void run_into(const Tensor& x, const Tensor& residual, const Tensor& y) const;

  /// For callers that take a band of rows through several convolutions while it is in cache (ops/inverted_residual.h). pack_rows() once,
  /// then run_rows(), which checks nothing, from any number of threads.
  /// Shapes:   x [N,I,h,W], y [N,O,oh,OW]: rows of maps as `rows` says; residual as y
  void pack_rows() const;
  void run_rows(const TensorView& x, const TensorView& residual, const DepthwiseRows& rows, const TensorView& y) const;
  /// True for a depthwise convolution, or one of 1x1 and stride 1 on kernels that serve all sizes equally.
  [[nodiscard]] bool takes_rows() const noexcept;
  [[nodiscard]] bool depthwise() const noexcept;
  /// True if it runs on matrix units (AMX).
  [[nodiscard]] bool on_matrix_units() const noexcept;
  /// True if all products of a result make one step there: first layers of 3 channels and kernels of 3x3.
  [[nodiscard]] bool in_one_chunk() const noexcept;
  [[nodiscard]] const Tensor& weight() const noexcept { return w_; }
  [[nodiscard]] const Tensor& bias() const noexcept { return b_; }  ///< or undefined
  [[nodiscard]] const Shape& weight_shape() const noexcept { return w_.shape(); }

  [[nodiscard]] bool defined() const noexcept { return w_.defined(); }
  [[nodiscard]] DType compute_dtype() const noexcept { return compute_; }
  [[nodiscard]] const Conv2dOptions& options() const noexcept { return options_; }
  [[nodiscard]] Activation activation() const noexcept { return act_; }

 private:
  [[nodiscard]] Tensor reference(const Tensor& x, const Tensor& residual, const Shape& y_shape) const;
  [[nodiscard]] bool prefers_onednn(const Shape& x, const Shape& y) const;
  void pack_depthwise() const;
  void pack_amx() const;
  void pack_tiles() const;
  void run_amx(const TensorView& x, const TensorView& residual, const TensorView& y) const;
  void run_depthwise(const TensorView& x, const TensorView& residual, const DepthwiseRows& rows,
                     const TensorView& y) const;
  void run_tiles(const TensorView& x, const TensorView& residual, const TensorView& y) const;
  void run_onednn(const TensorView& x, const TensorView& residual, const TensorView& y) const;

  Tensor w_, b_;  // as given; for the reference kernels and for packing
  // Packed bytes, made at the first call that needs them: which one that is depends on the size of the input.
  mutable Tensor depthwise_;
  mutable Tensor amx_;
  mutable Tensor tiles_;
  mutable Tensor winograd_;
  mutable Tensor onednn_;  // for inputs of onednn_shape_
  mutable Shape onednn_shape_;
  mutable bool onednn_residual_ = false;
  Conv2dOptions options_;
  Activation act_ = Activation::kNone;
  DType compute_ = DType::kF32;
  F32Math math_ = F32Math::kExact;
};

}  // namespace limbeck::ops
