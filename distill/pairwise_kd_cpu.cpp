// Fast pair-wise similarity loss. The pooled, normalised vectors of an image are rows of two f32 matrices f_S [M',C] and
// f_T [M',D]. Blocks of kRows rows of both similarity matrices come from matrix products, are subtracted, squared and
// added up, and one more product turns the difference into the gradient of those rows: the M' x M' matrices never exist.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/pairwise_kd_kernels.h"
#include "distill/row_math.h"
#include "ops/matmul_kernels.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kRows = 128;

TensorView matrix(float* data, std::int64_t rows, std::int64_t columns) {
  TensorView v;
  v.data = data;
  v.dtype = DType::kF32;
  v.shape = Shape{rows, columns};
  v.strides = row_major_strides(v.shape);
  return v;
}

/// Nodes of one image; `from` holds the winner's pixel per number and may be null.
template <class T>
void pool_and_normalise(const T* x, std::int64_t h, std::int64_t w, std::int64_t c, const PairwiseWindows& win,
                        float* f, double* norm, std::int32_t* from) {
  parallel_for(win.count(), pixel_grain(c * win.kernel_h * win.kernel_w), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t top = i / win.columns * win.kernel_h;
      const std::int64_t left = i % win.columns * win.kernel_w;
      float* best = f + i * c;
      std::int32_t* where = from == nullptr ? nullptr : from + i * c;
      const T* first = x + (top * w + left) * c;
      for (std::int64_t k = 0; k < c; ++k) best[k] = static_cast<float>(first[k]);
      if (where != nullptr) std::fill_n(where, c, static_cast<std::int32_t>(top * w + left));
      for (std::int64_t r = top; r < std::min(top + win.kernel_h, h); ++r) {
        for (std::int64_t col = left; col < std::min(left + win.kernel_w, w); ++col) {
          const auto pixel = static_cast<std::int32_t>(r * w + col);
          const T* row = x + pixel * c;
          if (where != nullptr) {
#pragma omp simd
            for (std::int64_t k = 0; k < c; ++k) {
              const auto v = static_cast<float>(row[k]);
              const bool wins = v > best[k] || v != v;
              best[k] = wins ? v : best[k];
              where[k] = wins ? pixel : where[k];
            }
          } else {
#pragma omp simd
            for (std::int64_t k = 0; k < c; ++k) {
              const auto v = static_cast<float>(row[k]);
              best[k] = v > best[k] || v != v ? v : best[k];
            }
          }
        }
      }
      norm[i] = std::sqrt(static_cast<double>(row_dot(best, best, c)));
      row_scale(static_cast<float>(1 / (norm[i] + kPairwiseEpsilon)), best, best, c);
    }
  });
}

/// a_s -= a_t; returns the sum of squares of the difference.
double subtract(float* a_s, const float* a_t, std::int64_t rows, std::int64_t columns) {
  double partial[kRows] = {};
  parallel_for(rows, pixel_grain(columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* s = a_s + i * columns;
      const float* t = a_t + i * columns;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = 0; j < columns; ++j) {
        s[j] -= t[j];
        sum += s[j] * s[j];
      }
      partial[i] = static_cast<double>(sum);
    }
  });
  double total = 0;
  for (std::int64_t i = 0; i < rows; ++i) total += partial[i];
  return total;
}

template <class S, class T>
double run(const TensorView& student, const TensorView& teacher, const TensorView& gstudent,
           const PairwiseKdOptions& options, double slope) {
  const std::int64_t h = student.h();
  const std::int64_t w = student.w();
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const PairwiseWindows win(h, w, options);
  const std::int64_t m = win.count();
  const std::int64_t rows = std::min(kRows, m);
  const Workspace floats(static_cast<std::size_t>(m * (c + d) + rows * (2 * m + c)) * sizeof(float));
  const Workspace norms(static_cast<std::size_t>(2 * m) * sizeof(double));
  const Workspace winners(static_cast<std::size_t>(gstudent.defined() ? m * c : 0) * sizeof(std::int32_t));
  float* f_s = floats.as<float>();
  float* f_t = f_s + m * c;
  float* a_s = f_t + m * d;
  float* a_t = a_s + rows * m;
  float* g = a_t + rows * m;
  double* norm_s = norms.as<double>();
  double* norm_t = norm_s + m;
  std::int32_t* from = winners.as<std::int32_t>();

  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    pool_and_normalise(student.ptr<S>() + n * h * w * c, h, w, c, win, f_s, norm_s, from);
    pool_and_normalise(teacher.ptr<T>() + n * h * w * d, h, w, d, win, f_t, norm_t,
                       static_cast<std::int32_t*>(nullptr));
    S* gs = gstudent.defined() ? gstudent.ptr<S>() + n * h * w * c : nullptr;
    if (gs != nullptr && m < h * w) {
      std::memset(static_cast<void*>(gs), 0, static_cast<std::size_t>(h * w * c) * sizeof(S));
    }
    for (std::int64_t first = 0; first < m; first += rows) {
      const std::int64_t count = std::min(rows, m - first);
      const auto similarity = [&](float* f, std::int64_t channels, float* a) {
        ops::kMatmul(kCpu, DType::kF32, matrix(f + first * channels, count, channels),
                     ops::transposed(matrix(f, m, channels)), TensorView{}, matrix(a, count, m));
      };
      similarity(f_s, c, a_s);
      similarity(f_t, d, a_t);
      total += subtract(a_s, a_t, count, m);
      if (gs == nullptr) continue;
      ops::kMatmul(kCpu, DType::kF32, matrix(a_s, count, m), matrix(f_s, m, c), TensorView{}, matrix(g, count, c));
      parallel_for(count, pixel_grain(c), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const float* row = g + i * c;
          const float* f = f_s + (first + i) * c;
          const double norm = norm_s[first + i];
          const double divisor = norm + kPairwiseEpsilon;
          const auto scale = static_cast<float>(norm > 0 ? slope / divisor : 0);
          const auto stretch = static_cast<float>(norm > 0 ? divisor / norm : 0);
          const float along = options.detach_norm ? 0.0F : stretch * row_dot(row, f, c);
          const std::int32_t* where = from + (first + i) * c;
          for (std::int64_t k = 0; k < c; ++k) gs[where[k] * c + k] = static_cast<S>(scale * (row[k] - along * f[k]));
        }
      });
    }
  }
  return total;
}

}  // namespace

void pairwise_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const PairwiseKdOptions& options) {
  const PairwiseWindows win(student.h(), student.w(), options);
  const auto m = static_cast<double>(win.count());
  const double factor = 1 / (static_cast<double>(student.n()) * m * m);
  visit_fast_dtype("pairwise_kd", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("pairwise_kd", teacher.dtype, [&](auto teacher_tag) {
      const double total =
          run<decltype(student_tag), decltype(teacher_tag)>(student, teacher, gstudent, options, 4 * factor);
      *loss.ptr<float>() = static_cast<float>(factor * total);
    });
  });
}

}  // namespace limbeck::distill
