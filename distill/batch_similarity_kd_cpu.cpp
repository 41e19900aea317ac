// Vectorised similarity-preserving loss. A run of kRun elements of all samples stays in cache while every pair of samples
// is multiplied; runs are gathered in a fixed number of blocks. The gradient mixes the samples with N x N weights.
#include <algorithm>
#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/batch_similarity_kd_kernels.h"
#include "distill/gram_rows.h"
#include "distill/row_math.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kRun = 2048;

/// k[i][j] = sum over elements of f[i] f[j].
template <class T>
void gram(const TensorView& f, double* k) {
  const std::int64_t n = f.shape[0];
  const std::int64_t size = f.shape[1];
  const std::int64_t runs = (size + kRun - 1) / kRun;
  const std::int64_t blocks = std::clamp<std::int64_t>(runs / 4, 1, 32);
  const Workspace partial(static_cast<std::size_t>(blocks * n * n) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double* sums = partial.as<double>() + b * n * n;
      std::fill_n(sums, n * n, 0.0);
      for (std::int64_t r = runs * b / blocks; r < runs * (b + 1) / blocks; ++r) {
        const std::int64_t count = std::min(kRun, size - r * kRun);
        for (std::int64_t i = 0; i < n; ++i) {
          const T* fi = f.ptr<T>() + i * size + r * kRun;
          for (std::int64_t j = 0; j <= i; ++j) {
            sums[i * n + j] += static_cast<double>(row_dot(fi, f.ptr<T>() + j * size + r * kRun, count));
          }
        }
      }
    }
  });
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::int64_t b = 0; b < blocks; ++b) sum += partial.as<double>()[b * n * n + i * n + j];
      k[i * n + j] = sum;
      k[j * n + i] = sum;
    }
  }
}

template <class T>
void gradient(const TensorView& f, const double* weights, const TensorView& g) {
  const std::int64_t n = f.shape[0];
  const std::int64_t size = f.shape[1];
  const std::int64_t runs = (size + kRun - 1) / kRun;
  parallel_for(runs, 1, [&](std::int64_t begin, std::int64_t end) {
    float mixed[kRun];
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t count = std::min(kRun, size - r * kRun);
      for (std::int64_t i = 0; i < n; ++i) {
        std::fill_n(mixed, count, 0.0F);
        for (std::int64_t j = 0; j < n; ++j) {
          row_add(static_cast<float>(weights[i * n + j]), f.ptr<T>() + j * size + r * kRun, mixed, count);
        }
        row_scale(1.0F, mixed, g.ptr<T>() + i * size + r * kRun, count);
      }
    }
  });
}

}  // namespace

void batch_similarity_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                             const TensorView& gstudent) {
  const std::int64_t n = student.shape[0];
  const Workspace matrices(static_cast<std::size_t>(2 * n * n) * sizeof(double));
  double* k_s = matrices.as<double>();
  double* k_t = k_s + n * n;
  visit_fast_dtype("batch_similarity_kd", student.dtype, [&](auto tag) { gram<decltype(tag)>(student, k_s); });
  visit_fast_dtype("batch_similarity_kd", teacher.dtype, [&](auto tag) { gram<decltype(tag)>(teacher, k_t); });
  const double factor = 1 / static_cast<double>(n * n);
  *loss.ptr<float>() = static_cast<float>(row_normalised_gram_loss(n, factor, gstudent.defined(), k_s, k_t));
  if (!gstudent.defined()) return;
  visit_fast_dtype("batch_similarity_kd", student.dtype,
                   [&](auto tag) { gradient<decltype(tag)>(student, k_s, gstudent); });
}

}  // namespace limbeck::distill
