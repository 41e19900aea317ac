// What this is: the adaptation loss of knowledge adaptation (KA): distance between the normalised map of the student
//   (behind its adapter) and the normalised code of the teacher's map.
// What it is not: the adapter (models/connectors.h, ka_feature_adapter) or the affinity loss (distill/ka_affinity.h).
// Read next: distill/ka_adapt_ref.cpp (the formula).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

/// What is normalised as one vector.
enum class KaScope : std::uint8_t {
  kImage,  ///< all C H W numbers of an image: torchdistill's form
  kPixel   ///< the C numbers of a position: the paper's equation as it reads
};

/// How the distances of the vectors become one number.
enum class KaReduction : std::uint8_t {
  kMean,        ///< image and p = 1: over all N C H W numbers; otherwise as kVectorMean
  kVectorMean,  ///< mean over the vectors: N images, or N H W positions
  kSum          ///< sum over the vectors
};

[[nodiscard]] std::string_view name_of(KaScope scope);          ///< "image", "pixel"
[[nodiscard]] std::string_view name_of(KaReduction reduction);  ///< "mean", "vector_mean", "sum"

struct KaAdaptOptions {
  double p = 1;  ///< norm of the difference
  double q = 2;  ///< norm that the vectors are divided by
  KaScope scope = KaScope::kImage;
  KaReduction reduction = KaReduction::kMean;
};

/// Distance of normalised vectors.
/// Formula:  a_v = s_v / (||s_v||_q + 1e-12), b_v alike from t; sum_v ||a_v - b_v||_p / count, v = image or position,
///           count by the reduction
/// Shapes:   student, teacher [N,C,H,W], equal; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; f32 within runs of 1024 numbers, f64 across; returns f32 (f64 for
///           f64). Autocast: full, without a cast.
/// Units:    none. With the defaults between 0 and 2 / sqrt(C H W); the usual weight is 50.
/// Gradient: of the student: (g - u (g.a)) / (||s||_q + 1e-12), g = sign(d) |d / ||d||_p|^(p-1), d = a - b,
///           u = sign(s) |s / ||s||_q|^(q-1). 0 for a vector that is 0 and for one that equals the teacher's.
///           Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0. Cost for p, q in {1, 2}: about 14 flop per number; image scope reads both maps
///           three times, pixel scope once; writes once. Other p and q call pow and read the maps twice more. No memory
///           besides the gradient.
/// Throws:   a teacher that requires grad; shapes that differ; p or q outside [1, 100].
/// Source:   He et al., CVPR 2019, eq. 2 (which gives neither p nor q). Image scope with p = 1, q = 2 and the mean over
///           all numbers is torchdistill's form, which does not protect the division by 0.
[[nodiscard]] Tensor ka_adapt(const Tensor& student, const Tensor& teacher, const KaAdaptOptions& options = {});

}  // namespace limbeck::distill
