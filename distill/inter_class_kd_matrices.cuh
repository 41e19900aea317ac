// What this is: the comparison of the inter-class similarity matrices of a batch on the GPU: compare_matrices() of
//   distill/inter_class_kd_kernels.h.
#pragma once

#include "distill/gram_rows.cuh"
#include "distill/inter_class_kd_kernels.h"

namespace limbeck::distill {

/// dL/dK of every image: one matrix each, or one for all of them.
struct MatrixSlope {
  const double* d;
  unsigned classes;
  bool each;
  double share;  ///< 1, or 1 / images where the matrices were averaged
  __device__ double operator()(unsigned image, unsigned i, unsigned j) const {
    return share * d[(static_cast<std::size_t>(each ? image : 0) * classes + i) * classes + j];
  }
};

/// out = mean of `images` matrices of `size` numbers.
template <class Out>
__global__ void average_kernel(const double* k, unsigned images, unsigned size, Out* out) {
  for (unsigned i = cuda::first(); i < size; i += cuda::step()) {
    double sum = 0;
    for (unsigned n = 0; n < images; ++n) sum += k[static_cast<std::size_t>(n) * size + i];
    out[i] = static_cast<Out>(sum / images);
  }
}

/// s becomes 2 factor (s - t); partial = the squares of s - t.
template <class Out>
__global__ void raw_difference_kernel(double* s, const double* t, unsigned count, double factor, Out* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned i = cuda::first(); i < count; i += cuda::step()) {
    const double difference = s[i] - t[i];
    total += difference * difference;
    s[i] = 2 * factor * difference;
  }
  total = cuda::block_all(total, cuda::Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = static_cast<Out>(total);
}

/// Writes the loss. `d` and `spare` (as large as k_s) are scratch, which the result refers to.
[[nodiscard]] inline MatrixSlope compare_matrices_cuda(const IcsdOptions& options, std::int64_t images, std::int64_t c,
                                                       const double* k_s, const double* k_t, double* d, double* spare,
                                                       float* loss) {
  const auto [each, raw, factor] = icsd_comparison(options.mode, images, c);
  const std::int64_t size = c * c;
  const std::int64_t matrices = each ? images : 1;
  const std::int64_t averaged = each ? 1 : images;  // with 1 it is a copy
  const std::int64_t numbers = each ? images * size : size;
  cuda::launch(average_kernel<double>, cuda::grid_for(numbers), cuda::kBlock, k_s, averaged, numbers, d);
  cuda::launch(average_kernel<double>, cuda::grid_for(numbers), cuda::kBlock, k_t, averaged, numbers, spare);
  if (raw) {
    const unsigned blocks = std::min(cuda::ceil_div(numbers, 4 * cuda::kBlock), 512U);
    const cuda::Scratch partial(blocks * sizeof(double));
    cuda::launch(raw_difference_kernel<double>, blocks, cuda::kBlock, d, spare, numbers, factor, partial.as<double>());
    cuda::launch(cuda::finish_sum_kernel<float>, 1, cuda::kBlock, partial.as<double>(), blocks, factor, loss);
  } else {
    row_normalised_loss_cuda(d, spare, matrices, c, factor, false, loss);
  }
  return {d, static_cast<unsigned>(c), each, each ? 1.0 : 1 / static_cast<double>(images)};
}

}  // namespace limbeck::distill
