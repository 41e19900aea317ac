// The similarity-preserving loss on the GPU. The matrix has one row of many numbers per sample: a thread multiplies 8 samples with 8 at
// some places of the rows, and the blocks' sums are added up. The comparison is that of distill/gram_rows.cuh.
#include <algorithm>

#include "core/cuda/columns.cuh"
#include "distill/batch_similarity_kd_kernels.h"
#include "distill/gram_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;

constexpr unsigned kGroup = 8;                 // samples that a thread holds
constexpr unsigned kPlaces = 32;               // places per thread, added in f32
constexpr unsigned kShare = kBlock * kPlaces;  // and per block
constexpr unsigned kProducts = kGroup * kGroup;

/// partial [pair of groups][block][8][8] = the products of two groups of samples over the block's share of their numbers.
template <class T>
__global__ void products_kernel(const T* f, unsigned samples, unsigned length, double* partial) {
  __shared__ double warp_sums[kBlock / kWarp][kProducts];
  const unsigned groups = (samples + kGroup - 1) / kGroup;
  const unsigned first_i = blockIdx.y / groups * kGroup;
  const unsigned first_j = blockIdx.y % groups * kGroup;
  if (first_j < first_i) return;  // the matrix is symmetric
  float sum[kGroup][kGroup] = {};
  for (unsigned k = 0; k < kPlaces; ++k) {
    const std::size_t place = std::size_t{blockIdx.x} * kShare + k * kBlock + threadIdx.x;
    if (place >= length) break;
    float a[kGroup];
    float b[kGroup];
    for (unsigned r = 0; r < kGroup; ++r) {
      a[r] = first_i + r < samples ? to_float(f[std::size_t{first_i + r} * length + place]) : 0.0F;
      b[r] = first_j + r < samples ? to_float(f[std::size_t{first_j + r} * length + place]) : 0.0F;
    }
    for (unsigned i = 0; i < kGroup; ++i) {
      for (unsigned j = 0; j < kGroup; ++j) sum[i][j] += a[i] * b[j];
    }
  }
  for (unsigned i = 0; i < kGroup; ++i) {
    for (unsigned j = 0; j < kGroup; ++j) {
      const double all = warp_all(static_cast<double>(sum[i][j]), Add{});
      if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp][i * kGroup + j] = all;
    }
  }
  __syncthreads();
  if (threadIdx.x >= kProducts) return;
  double total = 0;
  for (unsigned w = 0; w < kBlock / kWarp; ++w) total += warp_sums[w][threadIdx.x];
  partial[(std::size_t{blockIdx.y} * gridDim.x + blockIdx.x) * kProducts + threadIdx.x] = total;
}

__global__ void finish_products_kernel(const double* partial, unsigned samples, unsigned blocks, double* k) {
  const unsigned groups = (samples + kGroup - 1) / kGroup;
  for (unsigned e = first(); e < samples * samples; e += step()) {
    const unsigned i = e / samples < e % samples ? e / samples : e % samples;
    const unsigned j = e / samples < e % samples ? e % samples : e / samples;
    const std::size_t pair = i / kGroup * groups + j / kGroup;
    double sum = 0;
    for (unsigned b = 0; b < blocks; ++b)
      sum += partial[(pair * blocks + b) * kProducts + i % kGroup * kGroup + j % kGroup];
    k[e] = sum;
  }
}

/// g_i = sum_j K_ij F_j; one thread per place, 8 samples at a time.
template <class T>
__global__ void gradient_kernel(const T* f, const double* k, unsigned samples, unsigned length, T* g) {
  for (std::size_t place = first(); place < length; place += step()) {
    for (unsigned i0 = 0; i0 < samples; i0 += kGroup) {
      const unsigned rows = samples - i0 < kGroup ? samples - i0 : kGroup;
      float sum[kGroup] = {};
      for (unsigned j = 0; j < samples; ++j) {
        const float v = to_float(f[std::size_t{j} * length + place]);
        for (unsigned r = 0; r < rows; ++r) sum[r] += static_cast<float>(k[(i0 + r) * samples + j]) * v;
      }
      for (unsigned r = 0; r < rows; ++r) g[std::size_t{i0 + r} * length + place] = from_float<T>(sum[r]);
    }
  }
}

/// k [n][n] = F F^T.
void gram(const TensorView& f, double* k) {
  const std::int64_t n = f.shape[0];
  LIMBECK_CHECK(n <= 1024 && f.shape[1] < (std::int64_t{1} << 31), "batch_similarity_kd",
                "{} samples of {} numbers are too many", n, f.shape[1]);
  const unsigned groups = ceil_div(n, kGroup);
  const unsigned blocks = ceil_div(f.shape[1], kShare);
  const Scratch partial(std::size_t{groups} * groups * blocks * kProducts * sizeof(double));
  visit_fast_dtype("batch_similarity_kd", f.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(products_kernel<T>, dim3(blocks, groups * groups), kBlock, f.ptr<const T>(), n, f.shape[1],
           partial.as<double>());
  });
  launch(finish_products_kernel, grid_for(n * n), kBlock, partial.as<double>(), n, blocks, k);
}

}  // namespace

void batch_similarity_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                              const TensorView& gstudent) {
  const std::int64_t n = student.shape[0];
  const Scratch matrices(static_cast<std::size_t>(2 * n * n) * sizeof(double));
  auto* k_s = matrices.as<double>();
  double* k_t = k_s + n * n;
  gram(student, k_s);
  gram(teacher, k_t);
  row_normalised_loss_cuda(k_s, k_t, 1, n, 1 / static_cast<double>(n * n), gstudent.defined(), loss.ptr<float>());
  if (!gstudent.defined()) return;
  visit_fast_dtype("batch_similarity_kd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    launch(gradient_kernel<S>, grid_for(student.shape[1]), kBlock, student.ptr<const S>(), k_s, n, student.shape[1],
           gstudent.ptr<S>());
  });
}

}  // namespace limbeck::distill
