// What this is: the classification loss per pixel (or per sample).
// What it is not: an upsampling. Logits and labels have the same height and width; resize the logits before.
// Read next: ops/cross_entropy_ref.cpp (the formula), ops/fused_loss.h, distill/README.md (all losses in one table).
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

struct CrossEntropyOptions {
  std::int64_t ignore_index = 255;  ///< pixels with this label count neither in the sum nor in the mean
  Tensor class_weights = {};        ///< [K], not negative; undefined: all 1
  double label_smoothing = 0;       ///< share of the target that is spread evenly over all classes, in [0, 1]
};

/// Mean cross entropy between softmax(logits) and the labels, over the pixels that are not ignored.
/// Formula:  sum_i l_i / sum_i w[y_i];  l_i = (1-e) w[y_i] (-ln p_i[y_i]) + e/K sum_k w[k] (-ln p_i[k]),
///           p_i = softmax of pixel i over the classes, e = label_smoothing; both sums over pixels with y_i != ignore_index
/// Shapes:   logits [N,K,H,W] with labels [N,H,W], or logits [N,K] with labels [N]; class_weights [K]; returns [] (0-d)
/// Types:    logits f32/bf16/f64(ref), labels u8/i32/i64; f32 inside, pixels summed in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast: bf16 logits are read as they are and their gradient is bf16.
/// Units:    nats
/// Gradient: of the logits; value and gradient are computed in one sweep, the gradient is kept, no probabilities are.
///           No valid pixel, or only such of weight 0: loss 0 and gradient 0 (not NaN).
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2.
/// Throws:   DataError naming n, h, w, the label and the number of classes for a label that is neither a class nor
///           ignore_index; Error for shapes that do not fit, negative weights, a smoothing outside of [0, 1].
/// Source:   the behaviour of torch.nn.functional.cross_entropy with reduction="mean".
[[nodiscard]] Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options = {});

}  // namespace limbeck::ops
