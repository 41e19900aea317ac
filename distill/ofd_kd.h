// What this is: the partial distance of overhaul distillation (OFD): features before the ReLU, where only the positive part of
//   the teacher and being below its negative margin matter; and the margin itself.
// What it is not: the connector (1x1 convolution and batch norm on the student); the loss class in distill/loss_ofd.cpp owns it.
// Read next: distill/ofd_kd_ref.cpp (the formula), distill/loss_ofd.cpp (taps, margins from the teacher's batch norm).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

/// Squared distance to the teacher's feature, one-sided where the teacher is silent.
/// Formula:  u = max(t, m_c); sum over elements with s > u or u > 0 of (s - u)^2 / N
/// Shapes:   student, teacher [N,C,H,W], equal; margin [C] f32 or f64, negative; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; a pixel's channels in f32, pixels in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast.
/// Units:    squared activations, per sample: grows with C H W, hence weights like 1e-5
/// Gradient: of the student: 2 (s - u) / N where the element counts, else 0. Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4. Equal
///           maps give 0 where t > m_c; below the margin the teacher's value is raised to it, and the student may be lower.
/// Throws:   a teacher that requires grad; shapes that differ; a margin of another shape.
/// Source:   Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, eq. 1 and 3, as in the authors' code,
///           which adds 1e-5 / batch in front.
[[nodiscard]] Tensor ofd_kd(const Tensor& student, const Tensor& teacher, const Tensor& margin);

/// The expected value of a channel's negative responses, from the batch norm in front of the tap.
/// Formula:  x ~ Normal(mu = bias, s = |weight|): E[x | x < 0] = mu - s phi(mu/s) / Phi(-mu/s); where Phi(-mu/s) <= 1e-3 (almost
///           never negative) -3 s
/// Shapes:   weight, bias [C]; returns [C] f32
/// Types:    f32 or f64 in, computed in f64
/// Gradient: none.
/// Throws:   shapes that differ.
/// Source:   Heo et al. 2019, eq. 4 and the authors' code. A channel with weight 0 gives margin min(bias, 0) (the limit of the
///           formula for a negative bias; theirs divides by 0).
[[nodiscard]] Tensor ofd_margin(const Tensor& weight, const Tensor& bias);

}  // namespace limbeck::distill
