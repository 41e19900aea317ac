// Vectorised squared distance: one sweep over both maps, whatever their layout, as long as it is the same.
#include <algorithm>

#include "core/parallel.h"
#include "distill/feature_mse_kernels.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kRun = 1024;  // elements that are added in f32
constexpr std::int64_t kMostBlocks = 64;

template <bool WithGradient, class S, class T>
float run_sum(const S* s, const T* t, std::int64_t count, float slope, S* g) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = static_cast<float>(s[i]) - static_cast<float>(t[i]);
    sum += d * d;
    if constexpr (WithGradient) g[i] = static_cast<S>(slope * d);
  }
  return sum;
}

template <class S, class T>
double run(const TensorView& student, const TensorView& teacher, const TensorView& gstudent, double factor) {
  const std::int64_t count = student.numel();
  const std::int64_t runs = (count + kRun - 1) / kRun;
  const std::int64_t blocks = reduction_blocks(runs, 16, kMostBlocks);
  const auto slope = static_cast<float>(2 * factor);
  const bool with_gradient = gstudent.defined();
  double partial[kMostBlocks] = {};
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double total = 0;
      for (std::int64_t r = runs * b / blocks; r < runs * (b + 1) / blocks; ++r) {
        const std::int64_t at = r * kRun;
        const std::int64_t length = std::min(kRun, count - at);
        const S* s = student.ptr<S>() + at;
        const T* t = teacher.ptr<T>() + at;
        total += static_cast<double>(with_gradient ? run_sum<true>(s, t, length, slope, gstudent.ptr<S>() + at)
                                                   : run_sum<false>(s, t, length, slope, static_cast<S*>(nullptr)));
      }
      partial[b] = total;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) total += partial[b];
  return factor * total;
}

}  // namespace

void feature_mse_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, double factor) {
  visit_fast_dtype("feature_mse", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("feature_mse", teacher.dtype, [&](auto teacher_tag) {
      *loss.ptr<float>() =
          static_cast<float>(run<decltype(student_tag), decltype(teacher_tag)>(student, teacher, gstudent, factor));
    });
  });
}

}  // namespace limbeck::distill
