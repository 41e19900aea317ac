// What this is: the norm of all gradients, and scaling them down to a given norm.
#pragma once

#include <span>

#include "core/tensor.h"

namespace limbeck::nn {

/// sqrt of the sum of squares over the gradients of all parameters; undefined gradients count as zero.
/// Shapes: any
/// Types:  f32 or f64; sums in f64, in a fixed order, so it is the same for every thread count
[[nodiscard]] double grad_norm(std::span<const Tensor> parameters);

/// Scales all gradients in place so that their joint norm is at most `max_norm`; returns the norm before.
/// Formula: g *= min(1, max_norm / (norm + 1e-6))
/// Shapes:  any
/// Throws:  NonFiniteError if the norm is NaN or infinite: scaling would spread the damage to all parameters.
/// Source:  the behaviour of torch.nn.utils.clip_grad_norm_ with error_if_nonfinite
double clip_grad_norm_(std::span<const Tensor> parameters, double max_norm);

/// The same on a GPU without waiting for it: returns the norm before as a number on the device, and leaves it to the caller to
/// notice later that it is not finite.
/// Shapes:  any; returns [] f32
[[nodiscard]] Tensor clip_grad_norm_on_device_(std::span<const Tensor> parameters, double max_norm);

}  // namespace limbeck::nn
