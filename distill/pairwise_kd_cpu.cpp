// Fast pair-wise similarity loss: max-pooling, the difference of the affinities of the pooled positions
// (distill/position_affinity.h), and the gradient on its way back to the winners of the windows.
#include <algorithm>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/pairwise_kd_kernels.h"
#include "distill/position_affinity.h"
#include "distill/row_math.h"
#include "ops/row_store.h"

namespace limbeck::distill {
namespace {

/// A map of one image with `positions` positions, channels-last.
TensorView pooled_view(float* data, std::int64_t c, std::int64_t positions) {
  TensorView v;
  v.data = data;
  v.dtype = DType::kF32;
  v.shape = Shape{1, c, 1, positions};
  v.strides = Strides{positions * c, 1, positions * c, c};
  return v;
}

/// f [window][c] = the largest number per window; `from` holds the winner's pixel per number and may be null.
template <class T>
void pool(const T* x, std::int64_t h, std::int64_t w, std::int64_t c, const PairwiseWindows& win, float* f,
          std::int32_t* from) {
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
    }
  });
}

/// gs = the gradient of every window's number at its winner, 0 elsewhere: one sweep in the order of the memory.
template <class S>
void unpool(const float* gradient, const std::int32_t* from, std::int64_t h, std::int64_t w, std::int64_t c,
            const PairwiseWindows& win, const ops::RowStore<S>& store, S* gs) {
  parallel_for(h * w, pixel_grain(c), [&](std::int64_t begin, std::int64_t end) {
    const Workspace buffer(static_cast<std::size_t>(ops::row_store_floats(c)) * sizeof(float));
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      const std::int64_t window = pixel / w / win.kernel_h * win.columns + pixel % w / win.kernel_w;
      const float* g = gradient + window * c;
      const std::int32_t* where = from + window * c;
      const auto here = static_cast<std::int32_t>(pixel);
      float* row = store.target(gs + pixel * c, buffer.as<float>());
#pragma omp simd
      for (std::int64_t k = 0; k < c; ++k) row[k] = where[k] == here ? g[k] : 0.0F;
      store.finish(row, gs + pixel * c, c);
    }
    store.fence();
  });
}

template <class S, class T>
double run(const TensorView& student, const TensorView& teacher, const TensorView& gstudent, const PairwiseWindows& win,
           const AffinityForm& form, double slope) {
  const std::int64_t h = student.h();
  const std::int64_t w = student.w();
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const std::int64_t m = win.count();
  const bool gradient = gstudent.defined();
  const Workspace maps(static_cast<std::size_t>(m * (gradient ? 2 * c + d : c + d)) * sizeof(float));
  const Workspace winners(static_cast<std::size_t>(gradient ? m * c : 0) * sizeof(std::int32_t));
  const TensorView p_s = pooled_view(maps.as<float>(), c, m);
  const TensorView p_t = pooled_view(p_s.ptr<float>() + m * c, d, m);
  const TensorView g = gradient ? pooled_view(p_t.ptr<float>() + m * d, c, m) : TensorView{};
  std::int32_t* from = gradient ? winners.as<std::int32_t>() : nullptr;
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    pool(student.ptr<S>() + n * h * w * c, h, w, c, win, p_s.ptr<float>(), from);
    pool(teacher.ptr<T>() + n * h * w * d, h, w, d, win, p_t.ptr<float>(), static_cast<std::int32_t*>(nullptr));
    total += affinity_difference(p_s, p_t, g, form, slope);
    if (!gradient) continue;
    unpool(g.ptr<float>(), from, h, w, c, win, ops::RowStore<S>(gstudent), gstudent.ptr<S>() + n * h * w * c);
  }
  return total;
}

}  // namespace

void pairwise_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const PairwiseKdOptions& options) {
  const PairwiseWindows win(student.h(), student.w(), options);
  const AffinityForm form{.epsilon = kPairwiseEpsilon, .detach_norm = options.detach_norm};
  const auto m = static_cast<double>(win.count());
  const double factor = 1 / (static_cast<double>(student.n()) * m * m);
  double total = 0;
  if (win.kernel_h * win.kernel_w == 1) {
    total = affinity_difference(student, teacher, gstudent, form, factor);
  } else {
    visit_fast_dtype("pairwise_kd", student.dtype, [&](auto student_tag) {
      visit_fast_dtype("pairwise_kd", teacher.dtype, [&](auto teacher_tag) {
        using S = decltype(student_tag);
        using T = decltype(teacher_tag);
        total = run<S, T>(student, teacher, gstudent, win, form, factor);
      });
    });
  }
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
