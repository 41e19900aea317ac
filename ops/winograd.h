// What this is: Winograd's minimal filtering F(4x4, 3x3) for f32: 3x3 convolutions of stride 1 with a quarter of the
//   multiplications, for the frozen networks of ops/packed_conv2d.h.
// What it is not: used for training (its rounding is about ten times that of the direct sum) or bf16 (the transforms
//   would be rounded too).
// Read next: ops/winograd.cpp.
//
// Note [winograd]
//   A 4x4 patch of the result needs a 6x6 patch d of the input. With fixed matrices A, B, G
//     y = A^T [ sum_c (G w_c G^T) . (B^T d_c B) ] A,     "." = element by element,
//   so the sum over channels is 36 independent matrix products [patches x C] x [C x O], one per element of the 6x6 frame.
//   The transforms of w are done once. With dilation D the map falls into D x D interleaved maps without dilation.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "ops/conv2d_engine.h"

namespace limbeck::ops {

/// True if F(4x4) can compute this convolution and needs clearly less work than the direct sum.
/// Shapes:   x [N,I,H,W]; w [O,I,3,3]; y [N,O,OH,OW]
[[nodiscard]] bool winograd_pays(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& options);

/// Bytes of the transformed and packed weights.
/// Shapes:   w [O,I,3,3]
[[nodiscard]] std::size_t winograd_packed_bytes(const Shape& w);
/// Transforms f32 weights (in double) and packs them.
/// Shapes:   w f32 [O,I,3,3]; packed [winograd_packed_bytes]
void winograd_pack(const TensorView& w, void* packed);

/// y = act(bias + conv(x, w) + residual).
/// Shapes:   as conv2d; `w` is the shape of the weights
/// Types:    f32
/// Error:    2e-5 of the largest value.
/// Source:   Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, section 4.3.
void winograd_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                      const Conv2dOptions& options, const TensorView& y);

}  // namespace limbeck::ops
