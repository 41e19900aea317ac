// What this is: the loss between two matrices whose rows are normalised, shared by batch_similarity_kd (samples),
//   inter_channel_kd (channels) and icsd (classes). Works on the small matrices, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace limbeck::distill {

/// factor sum_ij (G_S - G_T)^2 with G = K / max(||K[i,:]||, 1e-12) row by row. K_T is overwritten by G_T, K_S by dL/dK_S.
/// A student's row of length up to 1e-12 has no direction and gets gradient 0.
/// Shapes:   k_s, k_t [size][size]
[[nodiscard]] inline double row_normalised_loss(std::int64_t size, double factor, double* k_s, double* k_t) {
  constexpr double kLeastNorm = 1e-12;
  const auto norm_of = [&](const double* row) {
    double squares = 0;
    for (std::int64_t j = 0; j < size; ++j) squares += row[j] * row[j];
    return std::sqrt(squares);
  };
  double total = 0;
  std::vector<double> d(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) {
    double* s = k_s + i * size;
    double* t = k_t + i * size;
    const double norm_s = norm_of(s);
    const double norm_t = std::max(norm_of(t), kLeastNorm);
    const double divisor = std::max(norm_s, kLeastNorm);
    double along = 0;
    for (std::int64_t j = 0; j < size; ++j) {
      t[j] /= norm_t;
      s[j] /= divisor;
      const double difference = s[j] - t[j];
      total += difference * difference;
      d[static_cast<std::size_t>(j)] = 2 * factor * difference;
      along += s[j] * d[static_cast<std::size_t>(j)];
    }
    const bool flat = norm_s <= kLeastNorm;
    for (std::int64_t j = 0; j < size; ++j) {
      s[j] = flat ? 0.0 : (d[static_cast<std::size_t>(j)] - along * s[j]) / divisor;
    }
  }
  return factor * total;
}

/// As above for K = F F^T: if `want_gradient`, K_S becomes dL/dK + (dL/dK)^T, so that the gradient of the rows F is K_S F.
/// Shapes:   k_s, k_t [size][size]
[[nodiscard]] inline double row_normalised_gram_loss(std::int64_t size, double factor, bool want_gradient, double* k_s,
                                                     double* k_t) {
  const double loss = row_normalised_loss(size, factor, k_s, k_t);
  if (want_gradient) {
    for (std::int64_t i = 0; i < size; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        const double both = k_s[i * size + j] + k_s[j * size + i];
        k_s[i * size + j] = both;
        k_s[j * size + i] = both;
      }
    }
  }
  return loss;
}

}  // namespace limbeck::distill
