// Fast category-wise similarity loss. The pooled maps have a quarter of the pixels; everything after the pooling works on
// f32 copies of them, [M][C] as in memory: a softmax per column, the overlaps (distill/channel_gram.h), and back.
#include <algorithm>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/channel_gram.h"
#include "distill/csd_kd_kernels.h"
#include "ops/simd.h"
#include "ops/spatial_pass.h"

namespace limbeck::distill {
namespace {

namespace simd = ops::simd;
using ops::SpatialPlan;

/// Sizes of a map and its pooled one. Rows of windows are handled as lines of numbers, and pixels of a line with whole vectors: what a
/// vector writes behind the last channel of a pixel, the next pixel overwrites. Lines therefore have kSlack numbers more.
struct Pooling {
  static constexpr std::int64_t kSlack = simd::kLanes;
  std::int64_t h, w, c, rows, columns;
  SpatialPlan plan;  // of the pooled map
  explicit Pooling(const TensorView& x)
      : h(x.h()), w(x.w()), c(x.c()), rows((x.h() + 1) / 2), columns((x.w() + 1) / 2), plan(pooled_shape()) {}
  [[nodiscard]] std::int64_t count() const noexcept { return rows * columns; }
  [[nodiscard]] std::int64_t line() const noexcept { return w * c; }
  [[nodiscard]] std::int64_t pooled_line() const noexcept { return columns * c; }
  [[nodiscard]] std::int64_t grain() const noexcept { return 4096 / line() + 1; }
  /// Pixels of the windows of row i above each other, and of window j side by side.
  [[nodiscard]] std::int64_t height(std::int64_t i) const noexcept { return std::min<std::int64_t>(2, h - 2 * i); }
  [[nodiscard]] std::int64_t width(std::int64_t j) const noexcept { return std::min<std::int64_t>(2, w - 2 * j); }

 private:
  [[nodiscard]] TensorView pooled_shape() const {
    const Shape shape{1, c, rows, columns};
    return {nullptr, DType::kF32, shape, default_strides(shape)};
  }
};

/// z = means of the windows of one image.
template <class T>
void pool(const Pooling& p, const T* x, float* z) {
  parallel_for(p.rows, p.grain(), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(p.line() + p.pooled_line() + 2 * Pooling::kSlack) * sizeof(float));
    float* sums = scratch.as<float>();
    float* means = sums + p.line() + Pooling::kSlack;
    std::fill_n(sums + p.line(), Pooling::kSlack, 0.0F);
    for (std::int64_t i = begin; i < end; ++i) {
      const T* upper = x + 2 * i * p.line();
      const T* lower = upper + p.line();
      if (p.height(i) == 2) {
#pragma omp simd
        for (std::int64_t k = 0; k < p.line(); ++k)
          sums[k] = static_cast<float>(upper[k]) + static_cast<float>(lower[k]);
      } else {
        for (std::int64_t k = 0; k < p.line(); ++k) sums[k] = static_cast<float>(upper[k]);
      }
      for (std::int64_t j = 0; j < p.columns; ++j) {
        const float share = 1.0F / static_cast<float>(p.height(i) * p.width(j));
        const float* left = sums + 2 * j * p.c;
        for (std::int64_t k = 0; k < p.c; k += simd::kLanes) {
          simd::Vec sum = simd::load(left + k);
          if (p.width(j) == 2) sum += simd::load(left + p.c + k);
          simd::store(means + j * p.c + k, share * sum);
        }
      }
      std::copy_n(means, p.pooled_line(), z + i * p.pooled_line());
    }
  });
}

/// z becomes the softmax of z / tau over the positions, channel by channel.
void softmax_over_positions(const Pooling& p, double tau, float* z) {
  const SpatialPlan& plan = p.plan;
  const auto inverse_tau = static_cast<float>(1 / tau);
  const Workspace tops(static_cast<std::size_t>(plan.chunks * p.c) * sizeof(float));
  const Workspace parts(static_cast<std::size_t>((plan.chunks + 1) * p.c) * sizeof(double));
  float* top = tops.as<float>();
  double* sum = parts.as<double>();
  const auto for_chunks = [&](const auto& body) {
    parallel_for(plan.chunks, 1, [&](std::int64_t begin, std::int64_t end) {
      const Workspace scratch(static_cast<std::size_t>(2 * plan.row) * sizeof(float));
      for (std::int64_t k = begin; k < end; ++k) {
        body(k, z + plan.begin(k), scratch.as<float>(), scratch.as<float>() + plan.row);
      }
    });
  };
  for_chunks([&](std::int64_t k, float* chunk, float* lanes, float*) {
    ops::chunk_max(plan, chunk, plan.length(k), lanes);
    std::copy_n(lanes, p.c, top + k * p.c);
  });
  for (std::int64_t k = 1; k < plan.chunks; ++k) {
    for (std::int64_t ch = 0; ch < p.c; ++ch) top[ch] = std::max(top[ch], top[k * p.c + ch]);
  }
  for_chunks([&](std::int64_t k, float* chunk, float* largest, float* lanes) {
    ops::spread(plan, top, largest);
    std::fill_n(lanes, plan.row, 0.0F);
    ops::for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
      float* row = chunk + at;
#pragma omp simd
      for (std::int64_t j = 0; j < count; ++j) {
        row[j] = fast_exp((row[j] - largest[j]) * inverse_tau);
        lanes[j] += row[j];
      }
    });
    ops::fold_sum(plan, lanes, sum + (k + 1) * p.c);
  });
  std::fill_n(sum, p.c, 0.0);
  for (std::int64_t k = 1; k <= plan.chunks; ++k) {
    for (std::int64_t ch = 0; ch < p.c; ++ch) sum[ch] += sum[k * p.c + ch];
  }
  for (std::int64_t ch = 0; ch < p.c; ++ch) sum[ch] = 1 / sum[ch];
  for_chunks([&](std::int64_t k, float* chunk, float* share, float*) {
    ops::spread(plan, sum, share);
    ops::for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
#pragma omp simd
      for (std::int64_t j = 0; j < count; ++j) chunk[at + j] *= share[j];
    });
  });
}

/// along[ch] = sum over the positions of z g.
void sum_along(const Pooling& p, const float* z, const float* g, double* along) {
  const SpatialPlan& plan = p.plan;
  const Workspace parts(static_cast<std::size_t>(plan.chunks * p.c) * sizeof(double));
  parallel_for(plan.chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(plan.row) * sizeof(float));
    float* lanes = scratch.as<float>();
    for (std::int64_t k = begin; k < end; ++k) {
      std::fill_n(lanes, plan.row, 0.0F);
      ops::for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
        const float* zr = z + plan.begin(k) + at;
        const float* gr = g + plan.begin(k) + at;
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) lanes[j] += zr[j] * gr[j];
      });
      ops::fold_sum(plan, lanes, parts.as<double>() + k * p.c);
    }
  });
  std::fill_n(along, p.c, 0.0);
  for (std::int64_t k = 0; k < plan.chunks; ++k) {
    for (std::int64_t ch = 0; ch < p.c; ++ch) along[ch] += parts.as<double>()[k * p.c + ch];
  }
}

/// Gradient of the student from its distributions z and g = dL/dP.
template <class S>
void spread_gradient(const Pooling& p, double tau, const float* z, const float* g, const double* along, S* gs) {
  parallel_for(p.rows, p.grain(), [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t slopes_size = p.pooled_line() + Pooling::kSlack;
    const std::int64_t line_size = p.line() + 2 * Pooling::kSlack;
    const Workspace scratch(static_cast<std::size_t>(p.plan.row + slopes_size + line_size) * sizeof(float));
    float* mean = scratch.as<float>();
    float* slopes = mean + p.plan.row;
    float* line = slopes + slopes_size;
    ops::spread(p.plan, along, mean);
    std::fill_n(slopes + p.pooled_line(), Pooling::kSlack, 0.0F);
    for (std::int64_t i = begin; i < end; ++i) {
      ops::for_rows(p.plan, p.pooled_line(), [&](std::int64_t at, std::int64_t count) {
        const float* zr = z + i * p.pooled_line() + at;
        const float* gr = g + i * p.pooled_line() + at;
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) slopes[at + j] = zr[j] * (gr[j] - mean[j]);
      });
      for (std::int64_t j = 0; j < p.columns; ++j) {
        const float share = static_cast<float>(1 / tau) / static_cast<float>(p.height(i) * p.width(j));
        for (std::int64_t pixel = 2 * j; pixel < 2 * j + p.width(j); ++pixel) {
          for (std::int64_t k = 0; k < p.c; k += simd::kLanes) {
            simd::store(line + pixel * p.c + k, share * simd::load(slopes + j * p.c + k));
          }
        }
      }
      for (std::int64_t r = 2 * i; r < 2 * i + p.height(i); ++r) {
        S* out = gs + r * p.line();
#pragma omp simd
        for (std::int64_t k = 0; k < p.line(); ++k) out[k] = static_cast<S>(line[k]);
      }
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
  const Workspace floats(static_cast<std::size_t>(3 * m * c + c * c) * sizeof(float));
  const Workspace doubles(static_cast<std::size_t>(2 * c * c + c) * sizeof(double));
  float* z_s = floats.as<float>();
  float* z_t = z_s + m * c;
  float* g = z_t + m * c;
  float* d = g + m * c;
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
    softmax_over_positions(p, options.tau, z_s);
    softmax_over_positions(p, options.tau, z_t);
    channel_gram(z_s, m, c, k_s);
    channel_gram(z_t, m, c, k_t);
    for (std::int64_t i = 0; i < c * c; ++i) {
      const double difference = k_s[i] - k_t[i];
      total += difference * difference;
      d[i] = static_cast<float>(4 * factor * difference);
    }
    if (!gstudent.defined()) continue;
    channel_mix(d, z_s, m, c, g);
    sum_along(p, z_s, g, sums);
    visit_fast_dtype("csd_kd", student.dtype, [&](auto tag) {
      spread_gradient(p, options.tau, z_s, g, sums, gstudent.ptr<decltype(tag)>() + n * image);
    });
  }
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
