// What this is: attention transfer (AT): a map of where the activations of a network are strong, compared between student
//   and teacher. Also the statistics over several such maps (PSD) that double-similarity distillation builds on them.
// What it is not: self-attention, or channel-wise distillation, whose maps keep their channels (distill/channel_kd.h).
// Read next: distill/attention_kd_ref.cpp (the formulas), distill/csd_kd.h (the other half of DSD).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

/// Which of the three published forms; their weights differ by orders of magnitude.
enum class AttentionForm : std::uint8_t {
  kMeanSquare,  ///< mean over all positions of the squared difference: what the authors' code computes
  kNorm,        ///< mean over samples of the l2 norm of the difference: what the paper prints
  kColumns      ///< as kMeanSquare, but each column of the image is normalised by itself, not the image
};

/// "mean_square", "norm", "columns": the names in configurations.
/// Shapes:   none
[[nodiscard]] std::string_view name_of(AttentionForm form);
/// The form of that name; ConfigError listing the names otherwise.
/// Shapes:   none
[[nodiscard]] AttentionForm parse_attention_form(std::string_view name);

struct AttentionKdOptions {
  AttentionForm form = AttentionForm::kMeanSquare;
};

/// Difference of where student and teacher are active.
/// Formula:  q[n,m] = (1/C) sum_c x[n,c,m]^2, a[n] = q[n] / max(||q[n]||_2, 1e-12) over the M positions of a sample
///           kMeanSquare: sum_{n,m} (a_S - a_T)^2 / (N M);  kNorm: sum_n ||a_S[n] - a_T[n]||_2 / N;
///           kColumns: as kMeanSquare with one norm per (n, w), over h
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]; C and D may differ; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; sums over channels in f32, everything over positions in f64; returns
///           f32 (f64 for f64). Autocast: full, without a cast.
/// Units:    none: attention maps have norm 1, so values are about 1/M (kMeanSquare) and at most sqrt 2 (kNorm)
/// Gradient: of the student: 2 x / C dL/dq, dL/dq = (d - a (a.d)) / ||q||, d = dL/da. Saved: itself. A sample (column) whose
///           activations are all zero gives a zero gradient; so does kNorm where the maps agree.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0.
/// Throws:   a teacher that requires grad; N, H or W that differ.
/// Source:   Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, eq. 2, sum of squares (p = 2).
///           kMeanSquare is what the authors' code and CIRKD compute, kNorm what equation 2 says; torchdistill has both.
///           kColumns is the "attention" baseline in the released AICSD code, whose normalisation runs over dimension 1
///           of an [N,H,W] tensor.
[[nodiscard]] Tensor attention_kd(const Tensor& student, const Tensor& teacher, const AttentionKdOptions& options = {});

/// Pixel-wise similarity distillation (PSD): how attention changes from layer to layer.
/// Formula:  a_k = attention map of layer k as in attention_kd; r_kl = normalize(a_l - a_k) for k < l (l2 over the
///           positions of a sample, norm at least 1e-12); loss = mean over the pairs (k,l) of
///           sum_{n,m} (r_kl(S) - r_kl(T))^2 / (N M)
/// Shapes:   students[k] [N,C_k,H,W], teachers[k] [N,D_k,H,W], at least two layers, all of one N, H, W; returns [] (0-d)
/// Types:    as attention_kd; all students of one type
/// Gradient: of every student map. Saved: these gradients.
/// Error:    f32 within 1e-4 of the f64 reference relative to the largest element (differences of attention maps cancel
///           digits), bf16 within 5e-2. Finite for +-1e4; equal maps give exactly 0.
/// Throws:   as attention_kd; fewer than two layers; lists of different lengths.
/// Source:   Feng et al., "Double Similarity Distillation for Semantic Image Segmentation", TIP 2021; reduction as in CIRKD.
[[nodiscard]] Tensor psd_kd(std::span<const Tensor> students, std::span<const Tensor> teachers);

}  // namespace limbeck::distill
