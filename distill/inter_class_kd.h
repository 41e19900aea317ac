// What this is: inter-class similarity distillation (ICSD): how much the places where one class is seen differ from those of
//   every other class, as a K x K matrix of divergences, should be alike in student and teacher.
// What it is not: channel-wise distillation (distill/channel_kd.h), which compares each class with itself; correlations
//   between channels (distill/inter_channel_kd.h).
// Read next: distill/inter_class_kd_ref.cpp (the formulas), distill/inter_class_kd_cpu.cpp.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

/// Which matrices are compared, and how.
enum class IcsdMode : std::uint8_t {
  kPaperNorm,    ///< batch mean, rows of length 1, divided by N: what the weight 9500 of the paper belongs to
  kRowNorm,      ///< kPaperNorm without the division by N
  kPaperRaw,     ///< batch mean, as it is
  kImageRaw,     ///< one matrix per image, as they are
  kImageNorm,    ///< one matrix per image, rows of length 1
  kOfficialCode  ///< the released code, digit for digit; see Note [released code] in inter_class_kd_ref.cpp
};

struct IcsdOptions {
  double tau = 1;  ///< temperature of the softmax over positions, > 0
  IcsdMode mode = IcsdMode::kPaperNorm;
};

/// Mean squared difference of the inter-class similarity matrices.
/// Formula:  p_ni = softmax over the H W positions of x_ni / tau; K_n[i,j] = KL(p_ni || p_nj), diagonal exactly 0;
///           paper_raw      1/C^2 sum_ij (K_S - K_T)^2, K = 1/N sum_n K_n
///           row_norm       the same with every row of K divided by max(||K[i,:]||_2, 1e-12)
///           paper_norm     row_norm / N
///           image_raw      1/(N C^2) sum_nij over K_n itself; image_norm over its normalised rows
///           official_code  softmax over H alone, see Note [released code]
/// Shapes:   student [N,C,H,W], teacher [N,C,h,w]: equal N and C; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; sums over 512 positions in f32, beyond that and the matrices in f64;
///           returns f32 (f64 for f64). Autocast: full, without a cast.
/// Units:    squared nats (raw modes); otherwise none
/// Gradient: of the student: with D = dL/dK, l = ln p:
///           1/tau [p_k (sum_j D_kj (l_k - l_j) - sum_j D_kj K_kj + sum_i D_ik) - sum_i D_ik p_i].
///           A row of K of length up to 1e-12 (all classes alike) gets none. Saved: itself.
/// Cost:     4 C^2 multiply-adds per position (two matrices forward, two products back); both maps are read once for the
///           matrices, the student once more for the gradient. No probabilities are kept; scratch 16 C^2 doubles per image.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element (official_code 2e-5), bf16 within 2e-2.
///           Finite for +-1e4 (where the gradient keeps three digits); equal maps give exactly 0.
/// Throws:   a teacher that requires grad; N or C that differ; tau <= 0.
/// Source:   Mansourian et al., "AICSD: Adaptive Inter-Class Similarity Distillation for Semantic Segmentation",
///           arXiv:2308.04243. paper_norm keeps the row norm and the 1/N of the released code and the softmax over H W,
///           the proper divergence and the zero diagonal of the paper.
[[nodiscard]] Tensor icsd(const Tensor& student, const Tensor& teacher, const IcsdOptions& options = {});

/// The inter-class similarity matrix of a batch: row i, column j: how far the places of class j are from those of class i.
/// Formula:  1/N sum_n KL(p_ni || p_nj), p = softmax over positions of x / tau
/// Shapes:   logits [N,C,H,W]; returns [C,C]
/// Types:    f32/bf16/f64(ref); returns f32 (f64 for f64)
/// Units:    nats
/// Gradient: none; the result carries no history.
/// Throws:   maps that are not [N,C,H,W] or empty; tau <= 0.
/// Source:   as above
[[nodiscard]] Tensor inter_class_similarity(const Tensor& logits, double tau = 1);

/// "paper_norm", ..., as in configurations.
/// Shapes:   none
[[nodiscard]] std::string_view name_of(IcsdMode mode) noexcept;
/// Throws: ConfigError for an unknown name.
/// Shapes:   none
[[nodiscard]] IcsdMode parse_icsd_mode(std::string_view name);

}  // namespace limbeck::distill
