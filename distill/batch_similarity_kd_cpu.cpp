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

/// out[q] = sum of a[j] b_q[j] for four rows b_q at once: four independent sums hide the latency of an addition.
template <class T>
void row_dots4(const T* a, const T* const (&b)[4], std::int64_t c, float (&out)[4]) {
  const T* b0 = b[0];
  const T* b1 = b[1];
  const T* b2 = b[2];
  const T* b3 = b[3];
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (std::int64_t j = 0; j < c; ++j) {
    const auto v = static_cast<float>(a[j]);
    s0 += v * static_cast<float>(b0[j]);
    s1 += v * static_cast<float>(b1[j]);
    s2 += v * static_cast<float>(b2[j]);
    s3 += v * static_cast<float>(b3[j]);
  }
  out[0] = s0;
  out[1] = s1;
  out[2] = s2;
  out[3] = s3;
}

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
          const auto row = [&](std::int64_t sample) { return f.ptr<T>() + sample * size + r * kRun; };
          for (std::int64_t j = 0; j <= i; j += 4) {
            // Beyond the diagonal the last row is repeated; what comes of it is not kept.
            const T* const rows[4] = {row(j), row(std::min(j + 1, i)), row(std::min(j + 2, i)),
                                      row(std::min(j + 3, i))};
            float dots[4];
            row_dots4(row(i), rows, count, dots);
            for (std::int64_t q = 0; q < std::min<std::int64_t>(4, i - j + 1); ++q) {
              sums[i * n + j + q] += static_cast<double>(dots[q]);
            }
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
    // Four samples per visit of `mixed`; beyond the last one with weight 0.
    const auto add4 = [&](const double* row_weights, std::int64_t j, std::int64_t r, std::int64_t count) {
      const auto row = [&](std::int64_t sample) { return f.ptr<T>() + std::min(sample, n - 1) * size + r * kRun; };
      const auto weight = [&](std::int64_t sample) {
        return sample < n ? static_cast<float>(row_weights[sample]) : 0.0F;
      };
      const T* f0 = row(j);
      const T* f1 = row(j + 1);
      const T* f2 = row(j + 2);
      const T* f3 = row(j + 3);
      const float w0 = weight(j), w1 = weight(j + 1), w2 = weight(j + 2), w3 = weight(j + 3);
#pragma omp simd
      for (std::int64_t m = 0; m < count; ++m) {
        mixed[m] += w0 * static_cast<float>(f0[m]) + w1 * static_cast<float>(f1[m]) + w2 * static_cast<float>(f2[m]) +
                    w3 * static_cast<float>(f3[m]);
      }
    };
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t count = std::min(kRun, size - r * kRun);
      for (std::int64_t i = 0; i < n; ++i) {
        std::fill_n(mixed, count, 0.0F);
        for (std::int64_t j = 0; j < n; j += 4) add4(weights + i * n, j, r, count);
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
