// What this is: the inverted residual on matrix units; see ops/inverted_residual.h.
// Read next: ops/inverted_residual_amx.cpp.
#pragma once

#include <cstddef>

#include "ops/conv2d_engine.h"

namespace limbeck::ops {

/// A packed convolution.
/// Shapes:   w is the shape of its weights [O,I,KH,KW]; bias f32 [O] or undefined
struct PanelConv {
  const void* packed = nullptr;  ///< null: there is none
  Shape w;
  Conv2dOptions options;
  TensorView bias;
  Activation act = Activation::kNone;
};

/// Shapes:   x [N,C,H,W]; wide [N,I,H',W'], that the filter reads; residual as y or undefined; y [N,O,OH,OW]; all dense
/// Types:    x, y and residual f32 or bf16, all the same
struct PanelStrips {
  PanelConv widen;   ///< packed by amx_pack()
  PanelConv filter;  ///< packed by panel_filter_pack()
  PanelConv narrow;  ///< packed by amx_pack()
  TensorView x;
  Shape wide;
  TensorView residual, y;
};

/// Floats that panel_filter_pack() writes.
/// Shapes:   w [C,1,KH,KW]
[[nodiscard]] std::size_t panel_filter_floats(const Shape& w);
/// Shapes:   w f32 [C,1,KH,KW]; bias [C] or undefined; packed [panel of 32 channels][bias, tap 0, tap 1, ...][32]
void panel_filter_pack(const TensorView& w, const TensorView& bias, float* packed);
/// y = narrow(filter(widen(x))) + residual.
/// Shapes:   as PanelStrips
void panel_strips(const PanelStrips& job);

}  // namespace limbeck::ops
