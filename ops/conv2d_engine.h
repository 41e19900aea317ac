// What this is: which CPU implementation a dense convolution runs on, and the calls of all.
//   tiles   limbeck's own kernels (ops/conv2d_tiles.h): f32 always; bf16 unless the processor has matrix units
//   oneDNN  bf16 on processors with matrix units (AMX), and there f32 of frozen networks
//   AMX     inference with packed weights on such processors, bf16 and f32 from parts (ops/packed_conv2d.h only)
// They work on dense views as described in ops/conv2d_kernels.h.
// Read next: ops/conv2d_cpu.cpp.
#pragma once

#include <cstdint>

#include "core/memory.h"
#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"

namespace limbeck::ops {

enum class ConvEngine : std::uint8_t { kAuto, kTiles, kOneDnn, kAmx };

/// While alive, dense convolutions on this thread run on the given engine; for tests and benchmarks.
/// Shapes:   none
class ConvEngineGuard {
 public:
  explicit ConvEngineGuard(ConvEngine engine) noexcept : previous_(engine_) { engine_ = engine; }
  ConvEngineGuard(const ConvEngineGuard&) = delete;
  ConvEngineGuard& operator=(const ConvEngineGuard&) = delete;
  ~ConvEngineGuard() { engine_ = previous_; }
  [[nodiscard]] static ConvEngine engine() noexcept { return engine_; }

 private:
  static inline thread_local ConvEngine engine_ = ConvEngine::kAuto;
  ConvEngine previous_;
};

/// True if a convolution of this type runs on oneDNN now.
/// Shapes:   none
[[nodiscard]] bool use_onednn_conv(DType dtype) noexcept;

/// True on processors with bf16 matrix units (AMX).
/// Shapes:   none
[[nodiscard]] bool has_matrix_units() noexcept;

/// Everything a forward pass may fuse.
/// Shapes:   bias f32 [O]; residual as the result
struct ConvEpilogue {
  TensorView bias;
  TensorView residual;
  Activation act = Activation::kNone;
};

// --- tiles ------------------------------------------------------------------------------------------------------------

/// Bytes of the packed weights of all groups in type `dtype`.
/// Shapes:   w [O,I/G,KH,KW]
[[nodiscard]] std::size_t tiles_packed_bytes(const Shape& w, const Conv2dOptions& options, bool transposed,
                                             DType dtype);
/// Packs f32 weights, rounding to `dtype`.
/// Shapes:   w f32 [O,I/G,KH,KW]; packed [tiles_packed_bytes]
void tiles_pack(const TensorView& w, const Conv2dOptions& options, bool transposed, DType dtype, void* packed);
/// y = act(bias + conv(x, w) + residual), `packed` from tiles_pack(transposed = false).
/// Shapes:   as conv2d; `w` is the shape of the weights
void tiles_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                   const Conv2dOptions& options, const TensorView& y);
/// gx = dL/dx + bias, `packed` from tiles_pack(transposed = true).
/// Shapes:   as Conv2dBackwardDataFn
void tiles_backward_data(const TensorView& gy, const void* packed, const Shape& w, const TensorView& bias,
                         const Conv2dOptions& options, const TensorView& gx);
/// Shapes:   as Conv2dBackwardWeightsFn
void tiles_backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                            const TensorView& gw);

// --- AMX --------------------------------------------------------------------------------------------------------------

/// True if this processor and these kernels can compute the convolution.
/// Shapes:   w [O,I/G,KH,KW]
[[nodiscard]] bool amx_fits(const Shape& w, const Conv2dOptions& options) noexcept;
/// True if it also sums all products of a result in one step.
/// Shapes:   w [O,I,KH,KW]
[[nodiscard]] bool amx_in_one_chunk(const Shape& w, const Conv2dOptions& options) noexcept;
/// Bytes of the packed weights for maps of type `dtype`.
/// Shapes:   w [O,I,KH,KW]
[[nodiscard]] std::size_t amx_packed_bytes(const Shape& w, const Conv2dOptions& options, DType dtype);
/// Shapes:   w f32 [O,I,KH,KW]; packed [amx_packed_bytes]
void amx_pack(const TensorView& w, const Conv2dOptions& options, DType dtype, void* packed);
/// y = act(bias + conv(x, w) + residual).
/// Shapes:   as tiles_forward
/// Types:    x f32 (products of bf16 parts, see Note [f32 from bf16] in conv2d_amx.cpp) or bf16; y f32 or bf16; residual as y
/// Error:    f32 1e-5 of the largest value. Infinite inputs give NaN.
void amx_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                 const Conv2dOptions& options, const TensorView& y);

// --- oneDNN -----------------------------------------------------------------------------------------------------------

/// Bytes of the weights in the layout that the forward primitive for this input wants.
/// Shapes:   x [N,I,H,W]; w [O,I/G,KH,KW]; y [N,O,OH,OW]
[[nodiscard]] std::size_t onednn_packed_bytes(const Shape& x, const Shape& w, const Shape& y,
                                              const ConvEpilogue& epilogue, const Conv2dOptions& options, DType dtype);
/// Reorders f32 weights to that layout and type.
/// Shapes:   as onednn_packed_bytes
void onednn_pack(const Shape& x, const TensorView& w, const Shape& y, const ConvEpilogue& epilogue,
                 const Conv2dOptions& options, DType dtype, void* packed);
/// Shapes:   as tiles_forward
void onednn_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                    const Conv2dOptions& options, const TensorView& y);
/// Shapes:   as Conv2dBackwardDataFn
void onednn_backward_data(const TensorView& gy, const TensorView& w, const TensorView& bias,
                          const Conv2dOptions& options, const TensorView& gx);
/// Shapes:   as Conv2dBackwardWeightsFn
void onednn_backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                             const TensorView& gw);

}  // namespace limbeck::ops
