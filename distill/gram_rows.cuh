// What this is: the loss between matrices whose rows are normalised, on the GPU: as distill/gram_rows.h, one block per matrix.
#pragma once

#include "core/cuda/columns.cuh"

namespace limbeck::distill {

/// parts[n] = factor sum_ij (G_S - G_T)^2 with G = K / max(||K[i,:]||, 1e-12) row by row; k_s becomes dL/dK_S, or, if `both`,
/// dL/dK + (dL/dK)^T. A student's row of length up to 1e-12 has no direction and gets gradient 0.
template <class Out>
__global__ void row_normalised_kernel(double* k_s, const double* k_t, unsigned size, double factor, bool both,
                                      Out* parts) {
  constexpr double kLeastNorm = 1e-12;
  __shared__ double scratch[32];
  const unsigned lane = threadIdx.x % cuda::kWarp;
  const unsigned warps = cuda::kBlock / cuda::kWarp;
  const std::size_t matrix = static_cast<std::size_t>(blockIdx.x) * size * size;
  double total = 0;
  for (unsigned i = threadIdx.x / cuda::kWarp; i < size; i += warps) {
    double* s = k_s + matrix + static_cast<std::size_t>(i) * size;
    const double* t = k_t + matrix + static_cast<std::size_t>(i) * size;
    double squares_s = 0;
    double squares_t = 0;
    for (unsigned j = lane; j < size; j += cuda::kWarp) {
      squares_s += s[j] * s[j];
      squares_t += t[j] * t[j];
    }
    const double norm_s = sqrt(cuda::warp_all(squares_s, cuda::Add{}));
    const double norm_t = sqrt(cuda::warp_all(squares_t, cuda::Add{}));
    const double divisor_s = norm_s < kLeastNorm ? kLeastNorm : norm_s;
    const double divisor_t = norm_t < kLeastNorm ? kLeastNorm : norm_t;
    double along = 0;
    for (unsigned j = lane; j < size; j += cuda::kWarp) {
      const double g = s[j] / divisor_s;
      const double difference = g - t[j] / divisor_t;
      total += difference * difference;
      along += g * 2 * factor * difference;
    }
    along = cuda::warp_all(along, cuda::Add{});
    for (unsigned j = lane; j < size; j += cuda::kWarp) {
      const double g = s[j] / divisor_s;
      const double d = 2 * factor * (g - t[j] / divisor_t);
      s[j] = norm_s <= kLeastNorm ? 0.0 : (d - along * g) / divisor_s;
    }
  }
  total = cuda::block_all(total, cuda::Add{}, 0.0, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = static_cast<Out>(factor * total);
  if (!both) return;
  for (unsigned i = threadIdx.x / cuda::kWarp; i < size; i += warps) {
    for (unsigned j = lane; j <= i; j += cuda::kWarp) {
      double& below = k_s[matrix + static_cast<std::size_t>(i) * size + j];
      double& above = k_s[matrix + static_cast<std::size_t>(j) * size + i];
      const double sum = below + above;
      below = sum;
      above = sum;
    }
  }
}

/// Runs it over `matrices` matrices and writes the sum of the losses.
inline void row_normalised_loss_cuda(double* k_s, const double* k_t, std::int64_t matrices, std::int64_t size,
                                     double factor, bool both, float* loss) {
  const cuda::Scratch parts(static_cast<std::size_t>(matrices) * sizeof(double));
  cuda::launch(row_normalised_kernel<double>, static_cast<unsigned>(matrices), cuda::kBlock, k_s, k_t, size, factor,
               both, parts.as<double>());
  cuda::launch(cuda::finish_sum_kernel<float>, 1, cuda::kBlock, parts.as<double>(), matrices, 1.0, loss);
}

}  // namespace limbeck::distill
