// What this is: softmax and log-softmax over the classes of each pixel or over the positions of each channel.
// What it is not: a part of the losses. Cross entropy and the distillation losses compute their own softmax on the fly
//   and keep no probabilities; these two ops serve inference, and spell out in the tests what the fused losses mean.
// Read next: ops/softmax_ref.cpp (the formulas), ops/softmax_cpu.cpp.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Which elements sum to one.
enum class SoftmaxAxis : std::uint8_t {
  kChannel,  ///< the C values of one pixel (n,h,w): class probabilities
  kSpatial   ///< the H*W values of one channel (n,c): where in the image the channel is active
};

/// Softmax, stable for any finite input: the maximum is subtracted first.
/// Formula:  y_i = exp(x_i - m) / sum_j exp(x_j - m), m = max_j x_j, over the axis
/// Shapes:   x [N,C,H,W], or [N,C] for kChannel; returns the same shape
/// Types:    f32/bf16/f64(ref); f32 inside. Autocast: full.
/// Gradient: gx = y (gy - sum_j gy_j y_j); saves y.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2.
/// Throws:   x not floating or of another rank.
[[nodiscard]] Tensor softmax(const Tensor& x, SoftmaxAxis axis = SoftmaxAxis::kChannel);

/// Logarithm of the softmax, without the underflow that log(softmax(x)) has for unlikely classes.
/// Formula:  y_i = (x_i - m) - ln sum_j exp(x_j - m), m = max_j x_j, over the axis
/// Shapes:   x [N,C,H,W], or [N,C] for kChannel; returns the same shape
/// Types:    f32/bf16/f64(ref); f32 inside. Autocast: full.
/// Units:    nats
/// Gradient: gx = gy - exp(y) sum_j gy_j; saves y.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2.
/// Throws:   x not floating or of another rank.
[[nodiscard]] Tensor log_softmax(const Tensor& x, SoftmaxAxis axis = SoftmaxAxis::kChannel);

}  // namespace limbeck::ops
