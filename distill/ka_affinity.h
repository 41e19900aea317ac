// What this is: the affinity loss of knowledge adaptation (KA): which positions of an image look alike to the teacher's
//   code should look alike to the student (behind its adapter). All pairs of positions take part, and no matrix over
//   pairs of positions is ever made where the map has more positions than channels.
// What it is not: the adaptation loss (distill/ka_adapt.h), or the pair-wise loss of SKD, which pools first
//   (distill/pairwise_kd.h).
// Read next: distill/ka_affinity_ref.cpp (the formulas), distill/affinity_pairs.h (how they are computed).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

enum class KaAffinityReduce : std::uint8_t {
  kMeanSquare,  ///< mean of the squared differences
  kRowNorm,  ///< mean over the positions of the l2 norm of their row of differences: the paper's equation as it reads
  kTdl       ///< torchdistill: per channel, and over products of the normalised channel with itself
};

[[nodiscard]] std::string_view name_of(KaAffinityReduce reduce);  ///< "mean_square", "rownorm", "tdl"

struct KaAffinityOptions {
  KaAffinityReduce reduce = KaAffinityReduce::kMeanSquare;
};

/// Difference of the affinities of all pairs of positions.
/// Formula:  f_i = x_i / (||x_i||_2 + 1e-12), x_i the C numbers of position i; A_ij = f_i . f_j; M = H W
///           mean_square  sum_{n,i,j} (A_S - A_T)^2 / (N M^2)
///           rownorm      sum_{n,i} ||(A_S - A_T)[i,:]||_2 / (N M)
///           tdl          a_c = x_c / (||x_c||_2 + 1e-12), x_c the M numbers of channel c;
///                        sum_{n,c} ||a_c a_c^T of S - a_c a_c^T of T||_F / (N M)
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]; C and D may differ, except in tdl; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; products in f32 over runs of 256, runs in f64; returns f32 (f64 for
///           f64). Autocast: full, without a cast.
/// Units:    none: differences of cosines
/// Gradient: of the student. G_i = 4 sum_j (A_S - A_T)_ij f_j / (N M^2) for mean_square,
///           sum_j (A_S - A_T)_ij (1/r_i + 1/r_j) f_j / (N M) for rownorm, r_i the norm of row i (its terms are 0 where
///           r_i = 0); then (G_i - f_i (G_i . f_i)) / ||x_i||. A vector of length 0 gets 0. Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, also where the maps are close; tdl 1e-3
///           for maps that differ by less than a thousandth. bf16 within 2e-2. Finite for +-1e4; equal maps give exactly 0.
///           Repeats bit for bit with any number of threads.
///           Cost per image with c = max(C, D): mean_square 8 M c^2 flop, both maps read twice; rownorm 20 M c^2 flop, read
///           three times; written once. Scratch: mean_square 40 c^2 + 3072 c + 16 M bytes, rownorm 64 c^2 + 5120 c + 16 M +
///           4 M C. Where M < c, 2 M^2 (c + C) flop and 12 M^2 + 20 M c bytes. tdl: 20 M C flop, both maps read three times,
///           scratch of a few numbers per channel. Matrices over all pairs would take 8 M^2 C flop and, for 64x128
///           positions, 256 MiB each.
/// Throws:   a teacher that requires grad; N, H or W that differ; tdl and C != D.
/// Source:   He et al., CVPR 2019, eq. 3. The mean of squares is a choice: the paper leaves open whether the norm is
///           squared and the sum divided. tdl is what torchdistill runs, which has no cosines in it.
[[nodiscard]] Tensor ka_affinity(const Tensor& student, const Tensor& teacher, const KaAffinityOptions& options = {});

}  // namespace limbeck::distill
