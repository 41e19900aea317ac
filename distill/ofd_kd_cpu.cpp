// Vectorised partial distance for channels-last maps: one sweep, a pixel's channels side by side with their margins.
#include "core/memory.h"
#include "core/parallel.h"
#include "distill/ofd_kd_kernels.h"
#include "ops/map_view.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kMostBlocks = 64;

template <class S, class T>
double run(const TensorView& student, const TensorView& teacher, const float* margin, const TensorView& gstudent) {
  const std::int64_t c = student.c();
  const std::int64_t pixels = ops::pixel_count(student);
  const std::int64_t blocks = reduction_blocks(pixels * c, 16384, kMostBlocks);
  const auto slope = static_cast<float>(2.0 / static_cast<double>(student.n()));
  double partial[kMostBlocks] = {};
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double total = 0;
      for (std::int64_t p = pixels * b / blocks; p < pixels * (b + 1) / blocks; ++p) {
        const S* s = student.ptr<S>() + p * c;
        const T* t = teacher.ptr<T>() + p * c;
        S* g = gstudent.defined() ? gstudent.ptr<S>() + p * c : nullptr;
        float sum = 0;
        const auto distance = [&](std::int64_t k) {
          const auto sv = static_cast<float>(s[k]);
          const auto tv = static_cast<float>(t[k]);
          const float u = tv < margin[k] ? margin[k] : tv;
          const bool silent = (u <= 0.0F) & (sv <= u);
          return silent ? 0.0F : sv - u;
        };
        if (g != nullptr) {
#pragma omp simd reduction(+ : sum)
          for (std::int64_t k = 0; k < c; ++k) {
            const float d = distance(k);
            sum += d * d;
            g[k] = static_cast<S>(slope * d);
          }
        } else {
#pragma omp simd reduction(+ : sum)
          for (std::int64_t k = 0; k < c; ++k) {
            const float d = distance(k);
            sum += d * d;
          }
        }
        total += static_cast<double>(sum);
      }
      partial[b] = total;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) total += partial[b];
  return total / static_cast<double>(student.n());
}

}  // namespace

void ofd_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                const TensorView& gstudent) {
  const Workspace floats(static_cast<std::size_t>(student.c()) * sizeof(float));
  for (std::int64_t k = 0; k < student.c(); ++k) floats.as<float>()[k] = static_cast<float>(margin.ptr<double>()[k]);
  visit_fast_dtype("ofd_kd", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("ofd_kd", teacher.dtype, [&](auto teacher_tag) {
      *loss.ptr<float>() = static_cast<float>(
          run<decltype(student_tag), decltype(teacher_tag)>(student, teacher, floats.as<float>(), gstudent));
    });
  });
}

}  // namespace limbeck::distill
