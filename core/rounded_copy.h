// What this is: the bf16 values of f32 weights, kept beside them, so that a step with bf16 maps does not round the same weights
//   in every pass over every layer.
// What it is not: for the CPU, whose kernels pack weights in their own ways.
//
// Note [rounded copy]
//   A copy belongs to the storage of its weights and goes with it. It is made when a layer first asks, and made anew when
//   the weights have been written to since (their version tells). An optimizer on a GPU writes it in the kernel that
//   writes the weights, so in training it is never made anew.
//   In a recorded step (core/step_graph.h) layers read the copy where it was in the recording. A replay therefore looks first whether
//   somebody has written to the weights since the last one: an average that was put in for an evaluation, or a checkpoint.
#pragma once

#include "core/tensor.h"

namespace limbeck {

/// `t` in bf16. A tensor that fills its storage gets the kept copy, which is not to be written to; any other a new one.
/// Shapes: any
/// Throws: another type than f32.
[[nodiscard]] Tensor rounded_copy(const Tensor& t);

/// Where a kernel that writes `t` also writes the rounded values, in the same order; null if nobody has asked for a copy.
[[nodiscard]] bfloat16* rounded_target(const Tensor& t) noexcept;
/// Says that a kernel did so, after the version of `t` was raised. Nothing happens without a copy.
void rounded_copy_is_current(const Tensor& t) noexcept;

}  // namespace limbeck
