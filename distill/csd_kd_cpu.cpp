// Fast category-wise similarity loss. The pooled maps have a quarter of the pixels; everything after the pooling works on
// f32 copies of them, [M][C] as in memory: a softmax per column, the overlaps (distill/channel_gram.h), and back.
#include <algorithm>
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/channel_gram.h"
#include "distill/csd_kd_kernels.h"

namespace limbeck::distill {
namespace {

struct Pooling {
  std::int64_t h, w, c, rows, columns;
  explicit Pooling(const TensorView& x)
      : h(x.h()), w(x.w()), c(x.c()), rows((x.h() + 1) / 2), columns((x.w() + 1) / 2) {}
  [[nodiscard]] std::int64_t count() const noexcept { return rows * columns; }
  /// Calls body(row, first column, rows in the window, columns in the window).
  template <class Body>
  void window(std::int64_t i, const Body& body) const {
    const std::int64_t top = i / columns * 2;
    const std::int64_t left = i % columns * 2;
    body(top, left, std::min<std::int64_t>(2, h - top), std::min<std::int64_t>(2, w - left));
  }
};

template <class T>
void pool(const Pooling& p, const T* x, float* z) {
  parallel_for(p.count(), 4096 / p.c + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      p.window(i, [&](std::int64_t top, std::int64_t left, std::int64_t rows, std::int64_t columns) {
        const float share = 1.0F / static_cast<float>(rows * columns);
        float* out = z + i * p.c;
        std::fill_n(out, p.c, 0.0F);
        for (std::int64_t r = top; r < top + rows; ++r) {
          for (std::int64_t col = left; col < left + columns; ++col) {
            const T* in = x + (r * p.w + col) * p.c;
#pragma omp simd
            for (std::int64_t k = 0; k < p.c; ++k) out[k] += share * static_cast<float>(in[k]);
          }
        }
      });
    }
  });
}

/// z becomes the softmax of z / tau over the positions, channel by channel. `top`, `sum`: room for C numbers.
void softmax_over_positions(const Pooling& p, double tau, float* z, float* top, double* sum) {
  const auto inverse_tau = static_cast<float>(1 / tau);
  const std::int64_t m = p.count();
  std::copy_n(z, p.c, top);
  for (std::int64_t i = 1; i < m; ++i) {
#pragma omp simd
    for (std::int64_t k = 0; k < p.c; ++k) top[k] = z[i * p.c + k] > top[k] ? z[i * p.c + k] : top[k];
  }
  parallel_for(m, 1024 / p.c + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
#pragma omp simd
      for (std::int64_t k = 0; k < p.c; ++k) z[i * p.c + k] = fast_exp((z[i * p.c + k] - top[k]) * inverse_tau);
    }
  });
  std::fill_n(sum, p.c, 0.0);
  for (std::int64_t i = 0; i < m; ++i) {
#pragma omp simd
    for (std::int64_t k = 0; k < p.c; ++k) sum[k] += static_cast<double>(z[i * p.c + k]);
  }
  for (std::int64_t k = 0; k < p.c; ++k) top[k] = static_cast<float>(1 / sum[k]);
  parallel_for(m, 4096 / p.c + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
#pragma omp simd
      for (std::int64_t k = 0; k < p.c; ++k) z[i * p.c + k] *= top[k];
    }
  });
}

/// Gradient of the student from its distributions z and g = dL/dP.
template <class S>
void spread_gradient(const Pooling& p, double tau, const float* z, const float* g, float* mean, double* along, S* gs) {
  const std::int64_t m = p.count();
  std::fill_n(along, p.c, 0.0);
  for (std::int64_t i = 0; i < m; ++i) {
#pragma omp simd
    for (std::int64_t k = 0; k < p.c; ++k)
      along[k] += static_cast<double>(z[i * p.c + k]) * static_cast<double>(g[i * p.c + k]);
  }
  for (std::int64_t k = 0; k < p.c; ++k) mean[k] = static_cast<float>(along[k]);
  parallel_for(m, 4096 / p.c + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      p.window(i, [&](std::int64_t top, std::int64_t left, std::int64_t rows, std::int64_t columns) {
        const float share = static_cast<float>(1 / tau) / static_cast<float>(rows * columns);
        const float* zi = z + i * p.c;
        const float* gi = g + i * p.c;
        for (std::int64_t r = top; r < top + rows; ++r) {
          for (std::int64_t col = left; col < left + columns; ++col) {
            S* out = gs + (r * p.w + col) * p.c;
#pragma omp simd
            for (std::int64_t k = 0; k < p.c; ++k) out[k] = static_cast<S>(share * zi[k] * (gi[k] - mean[k]));
          }
        }
      });
    }
  });
}

}  // namespace

void csd_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                const TensorView& gstudent, const CsdKdOptions& options) {
  const Pooling p(student);
  const std::int64_t c = p.c;
  const std::int64_t m = p.count();
  const std::int64_t image = p.h * p.w * c;
  const Workspace floats(static_cast<std::size_t>(3 * m * c + c * c + c) * sizeof(float));
  const Workspace doubles(static_cast<std::size_t>(2 * c * c + c) * sizeof(double));
  float* z_s = floats.as<float>();
  float* z_t = z_s + m * c;
  float* g = z_t + m * c;
  float* d = g + m * c;
  float* column = d + c * c;
  double* k_s = doubles.as<double>();
  double* k_t = k_s + c * c;
  double* sums = k_t + c * c;
  const double factor = 1 / static_cast<double>(student.n() * c * c);
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    visit_fast_dtype("csd_kd", student.dtype,
                     [&](auto tag) { pool(p, student.ptr<decltype(tag)>() + n * image, z_s); });
    visit_fast_dtype("csd_kd", teacher.dtype,
                     [&](auto tag) { pool(p, teacher.ptr<decltype(tag)>() + n * image, z_t); });
    softmax_over_positions(p, options.tau, z_s, column, sums);
    softmax_over_positions(p, options.tau, z_t, column, sums);
    channel_gram(z_s, m, c, k_s);
    channel_gram(z_t, m, c, k_t);
    for (std::int64_t i = 0; i < c * c; ++i) {
      const double difference = k_s[i] - k_t[i];
      total += difference * difference;
      d[i] = static_cast<float>(4 * factor * difference);
    }
    if (!gstudent.defined()) continue;
    channel_mix(d, z_s, m, c, g);
    visit_fast_dtype("csd_kd", student.dtype, [&](auto tag) {
      spread_gradient(p, options.tau, z_s, g, column, sums, gstudent.ptr<decltype(tag)>() + n * image);
    });
  }
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
