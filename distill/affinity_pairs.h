// What this is: difference and sum of the normalised student and teacher vectors of positions, from which the
//   difference of their affinities is computed.
// What it is not: the products that are made of them (distill/position_affinity_cpu.cpp).
//
// Note [differences instead of Gram matrices]
//   With D = F_S - F_T and S = F_S + F_T (rows: positions, channels filled up with zeros),
//   A_S - A_T = (D S^T + S D^T) / 2. Hence ||A_S - A_T||^2 = (<D^T D, S^T S> + tr (D^T S)^2) / 2, which has as many
//   products of channel matrices as ||F_S^T F_S||^2 + ||F_T^T F_T||^2 - 2 ||F_S^T F_T||^2, but is exactly 0 for equal
//   maps and small for similar ones instead of being a difference of large numbers.
// Note [unscaled difference]
//   d = (s - r t) / divisor_s with r = divisor_s / divisor_t: exactly 0 for equal vectors, where
//   s / divisor_s - t / divisor_t would leave the rounding of a fused multiply-add. For r near 1 it is
//   (s - t) - (r - 1) t, because the rounding of r would count as a difference of the vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/parallel.h"
#include "distill/panel_products.h"
#include "distill/row_math.h"

namespace limbeck::distill {

/// What one position's vectors are multiplied by; filled by measure_positions().
struct PositionScale {
  float inverse;  ///< 1 / divisor_s
  float ratio;    ///< divisor_s / divisor_t, rounded to 1 where it is near
  float rest;     ///< what the ratio was rounded by
  float slope;    ///< inverse, or 0 for a vector of length 0, which gets no gradient
  float stretch;  ///< divisor_s / ||s||, or 0 where the length counts as a constant
};

/// The maps of one image, channels-last.
template <class S, class T>
struct ImagePair {
  const S* s;
  const T* t;
  std::int64_t positions, c, d;

  [[nodiscard]] std::int64_t panels() const { return panel_count(std::max(c, d)); }
};

/// ||x||_2, with more digits than f32 has: what it loses would count as a difference of the vectors.
/// Shapes:   x [c]
template <class X>
double length_of(const X* x, std::int64_t c) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t k = 0; k < c; ++k) {
    const auto v = static_cast<double>(static_cast<float>(x[k]));
    sum += v * v;
  }
  return std::sqrt(sum);
}

/// Divisors are lengths plus epsilon.
/// Shapes:   scales [positions]
template <class S, class T>
void measure_positions(const ImagePair<S, T>& x, double epsilon, bool detach_norm, PositionScale* scales) {
  parallel_for(x.positions, pixel_grain(x.c + x.d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double norm = length_of(x.s + i * x.c, x.c);
      const double divisor = norm + epsilon;
      const double ratio = divisor / (length_of(x.t + i * x.d, x.d) + epsilon);
      const double main = std::abs(ratio - 1) < 0.5 ? 1 : ratio;
      const auto inverse = static_cast<float>(1 / divisor);
      scales[i] = {inverse, static_cast<float>(main), static_cast<float>(main == 1 ? ratio - 1 : 0),
                   norm == 0 ? 0.0F : inverse, static_cast<float>(norm == 0 || detach_norm ? 0 : divisor / norm)};
    }
  });
}

/// Differences and sums of positions [first, first + rows).
/// Shapes:   out 2 panels() panels of `rows` positions: first those of D, then those of S
template <class S, class T>
void fill_pairs(const ImagePair<S, T>& x, const PositionScale* scales, std::int64_t first, std::int64_t rows,
                float* out) {
  const std::int64_t panels = x.panels();
  parallel_for(rows, pixel_grain(x.c + x.d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float inverse = scales[first + i].inverse;
      const float ratio = scales[first + i].ratio;
      const float rest = scales[first + i].rest;
      for (std::int64_t p = 0; p < panels; ++p) {
        const S* s = x.s + (first + i) * x.c + p * kWidth;
        const T* t = x.t + (first + i) * x.d + p * kWidth;
        float* difference = out + (p * rows + i) * kWidth;
        float* sum = difference + panels * rows * kWidth;
        const std::int64_t c = x.c - p * kWidth;
        const std::int64_t d = x.d - p * kWidth;
        if (c >= kWidth && d >= kWidth) {
#pragma omp simd
          for (std::int64_t k = 0; k < kWidth; ++k) {
            const auto a = static_cast<float>(s[k]);
            const auto b = static_cast<float>(t[k]);
            difference[k] = (a - ratio * b - rest * b) * inverse;
            sum[k] = (a + ratio * b + rest * b) * inverse;
          }
        } else {
          for (std::int64_t k = 0; k < kWidth; ++k) {
            const float a = k < c ? static_cast<float>(s[k]) : 0.0F;
            const float b = k < d ? static_cast<float>(t[k]) : 0.0F;
            difference[k] = (a - ratio * b - rest * b) * inverse;
            sum[k] = (a + ratio * b + rest * b) * inverse;
          }
        }
      }
    }
  });
}

/// Gradient of one position's vector, given that of its normalised form: (g - f (g.f)) / ||s||, or without the part along f.
/// Shapes:   s, g, gs [c]
template <class S>
void store_gradient(const S* s, const PositionScale& scale, const float* g, std::int64_t c, S* gs) {
  const float along = row_dot(g, s, c) * scale.inverse * scale.inverse * scale.stretch;
#pragma omp simd
  for (std::int64_t k = 0; k < c; ++k) gs[k] = static_cast<S>(scale.slope * (g[k] - along * static_cast<float>(s[k])));
}

}  // namespace limbeck::distill
