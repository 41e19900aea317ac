// The released code's form of the inter-class similarity loss (Note [released code] in inter_class_kd_ref.cpp),
// vectorised. Channels-last, every (column, class) of an image is one lane of its rows, so the softmax over h runs over
// whole rows.
#include <algorithm>
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/channel_gram.h"
#include "distill/inter_class_kd_kernels.h"

namespace limbeck::distill {
namespace {

struct Columns {
  std::int64_t h, w, c, lanes;
  explicit Columns(const TensorView& x) : h(x.h()), w(x.w()), c(x.c()), lanes(x.w() * x.c()) {}
  [[nodiscard]] std::int64_t image() const noexcept { return h * lanes; }
  [[nodiscard]] std::int64_t grain() const noexcept { return 4096 / h + 1; }
};

/// ln p and p of one image, softmax over h.
/// Shapes:   x, l, p [h][w][c]
template <class T>
void column_softmax(const Columns& v, const T* x, float inverse_tau, float* l, float* p) {
  parallel_for(v.lanes, v.grain(), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * v.lanes) * sizeof(float));
    float* top = scratch.as<float>();
    float* sum = top + v.lanes;
    for (std::int64_t j = begin; j < end; ++j) top[j] = static_cast<float>(x[j]);
    for (std::int64_t r = 1; r < v.h; ++r) {
      const T* row = x + r * v.lanes;
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) {
        const auto value = static_cast<float>(row[j]);
        top[j] = value > top[j] ? value : top[j];
      }
    }
    std::fill(sum + begin, sum + end, 0.0F);
    for (std::int64_t r = 0; r < v.h; ++r) {
      const T* row = x + r * v.lanes;
      float* lr = l + r * v.lanes;
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) {
        lr[j] = (static_cast<float>(row[j]) - top[j]) * inverse_tau;
        sum[j] += fast_exp(lr[j]);
      }
    }
#pragma omp simd
    for (std::int64_t j = begin; j < end; ++j) sum[j] = fast_log(sum[j]);
    for (std::int64_t r = 0; r < v.h; ++r) {
      float* lr = l + r * v.lanes;
      float* pr = p + r * v.lanes;
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) {
        lr[j] -= sum[j];
        pr[j] = fast_exp(lr[j]);
      }
    }
  });
}

/// v_ij of one image: sum p_j ln p_j - sum p_i p_j for i <= j, mirrored. `lanes` is room for one row.
void code_matrix(const Columns& v, const float* l, const float* p, float* lanes, double* k) {
  channel_gram(p, v.h * v.w, v.c, k);
  std::fill_n(lanes, v.lanes, 0.0F);
  for (std::int64_t r = 0; r < v.h; ++r) {
    const float* lr = l + r * v.lanes;
    const float* pr = p + r * v.lanes;
#pragma omp simd
    for (std::int64_t j = 0; j < v.lanes; ++j) lanes[j] += pr[j] * lr[j];
  }
  for (std::int64_t j = 0; j < v.c; ++j) {
    double entropy = 0;
    for (std::int64_t w = 0; w < v.w; ++w) entropy += static_cast<double>(lanes[w * v.c + j]);
    for (std::int64_t i = 0; i <= j; ++i) {
      k[i * v.c + j] = entropy - k[i * v.c + j];
      k[j * v.c + i] = k[i * v.c + j];
    }
  }
}

/// g = (p dp - p sum_h p dp) / tau with dp = slope (l + 1) - mix, over the lanes of one image.
template <class S>
void column_gradient(const Columns& v, float inverse_tau, const float* l, const float* p, const float* mix,
                     const float* slope, S* g) {
  parallel_for(v.lanes, v.grain(), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * v.lanes) * sizeof(float));
    float* along = scratch.as<float>();
    float* weight = along + v.lanes;
    for (std::int64_t j = begin; j < end; ++j) weight[j] = slope[j % v.c];
    std::fill(along + begin, along + end, 0.0F);
    const auto visit = [&](const auto& body) {
      for (std::int64_t r = 0; r < v.h; ++r) {
        const std::int64_t row = r * v.lanes;
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) body(row + j, j);
      }
    };
    visit([&](std::int64_t at, std::int64_t j) { along[j] += p[at] * (weight[j] * (l[at] + 1.0F) - mix[at]); });
    visit([&](std::int64_t at, std::int64_t j) {
      g[at] = static_cast<S>(inverse_tau * p[at] * (weight[j] * (l[at] + 1.0F) - mix[at] - along[j]));
    });
  });
}

}  // namespace

void icsd_code_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent, const IcsdOptions& options) {
  const Columns s(student);
  const Columns t(teacher);
  const std::int64_t c = s.c;
  const std::int64_t images = student.n();
  const std::int64_t size = std::max(s.image(), t.image());
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  const Workspace floats(static_cast<std::size_t>(3 * size + c * c + c) * sizeof(float));
  const Workspace doubles(static_cast<std::size_t>(2 * images * c * c) * sizeof(double));
  float* l = floats.as<float>();
  float* p = l + size;
  float* mix = p + size;
  float* weights = mix + size;
  float* slope = weights + c * c;
  double* k_s = doubles.as<double>();
  double* k_t = k_s + images * c * c;
  const auto softmax = [&](const Columns& v, const TensorView& x, std::int64_t n) {
    visit_fast_dtype("icsd", x.dtype,
                     [&](auto tag) { column_softmax(v, x.ptr<decltype(tag)>() + n * v.image(), inverse_tau, l, p); });
  };
  for (std::int64_t n = 0; n < images; ++n) {
    softmax(s, student, n);
    code_matrix(s, l, p, mix, k_s + n * c * c);
    softmax(t, teacher, n);
    code_matrix(t, l, p, mix, k_t + n * c * c);
  }
  *loss.ptr<float>() = static_cast<float>(compare_matrices(options, images, c, k_s, k_t));
  if (!gstudent.defined()) return;
  for (std::int64_t n = 0; n < images; ++n) {
    const double* d = k_s + n * c * c;
    for (std::int64_t j = 0; j < c; ++j) {
      double sum = d[j * c + j];
      for (std::int64_t i = 0; i < j; ++i) sum += d[i * c + j] + d[j * c + i];
      slope[j] = static_cast<float>(sum);
      for (std::int64_t i = 0; i < c; ++i) weights[i * c + j] = static_cast<float>(d[i * c + j] + d[j * c + i]);
    }
    softmax(s, student, n);
    channel_mix(weights, p, s.h * s.w, c, mix);
    visit_fast_dtype("icsd", student.dtype, [&](auto tag) {
      using S = decltype(tag);
      column_gradient(s, inverse_tau, l, p, mix, slope, gstudent.ptr<S>() + n * s.image());
    });
  }
}

}  // namespace limbeck::distill
