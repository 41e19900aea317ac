// Vectorised local similarity loss for channels-last maps. A pair of neighbours is visited once, from the pixel that comes
// first: right, below left, below, below right. Visit 1 gives the value and one weight per pair; visit 2 gathers, for every
// pixel, its four own weights and those of the four neighbours before it.
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/local_kd_kernels.h"
#include "distill/row_math.h"
#include "ops/map_view.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kMostBlocks = 64;
constexpr std::int64_t kPairs = 4;
constexpr std::int64_t kDown[kPairs] = {0, 1, 1, 1};
constexpr std::int64_t kRight[kPairs] = {1, -1, 0, 1};

struct Grid {
  std::int64_t h, w;
  /// Calls body(direction, offset in pixels) for the pairs that begin (sign 1) or end (sign -1) at pixel `at` of an image.
  template <class Body>
  void for_pairs(std::int64_t at, std::int64_t sign, const Body& body) const {
    const std::int64_t row = at / w;
    const std::int64_t column = at % w;
    for (std::int64_t k = 0; k < kPairs; ++k) {
      const std::int64_t i = row + sign * kDown[k];
      const std::int64_t j = column + sign * kRight[k];
      if (i >= 0 && i < h && j >= 0 && j < w) body(k, sign * (kDown[k] * w + kRight[k]));
    }
  }
};

template <class S, class T>
double values(const TensorView& student, const TensorView& teacher, double slope, float* weights) {
  const Grid grid{student.h(), student.w()};
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const std::int64_t pixels = ops::pixel_count(student);
  const std::int64_t blocks = reduction_blocks(pixels * c, 8192, kMostBlocks);
  double partial[kMostBlocks] = {};
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double total = 0;
      for (std::int64_t p = pixels * b / blocks; p < pixels * (b + 1) / blocks; ++p) {
        const S* s = student.ptr<S>() + p * c;
        const T* t = teacher.ptr<T>() + p * d;
        grid.for_pairs(p % (grid.h * grid.w), 1, [&](std::int64_t k, std::int64_t offset) {
          const double d_s = std::sqrt(static_cast<double>(row_distance2(s, s + offset * c, c)));
          const double d_t = std::sqrt(static_cast<double>(row_distance2(t, t + offset * d, d)));
          const double difference = d_s - d_t;
          total += difference * difference;
          if (weights != nullptr)
            weights[p * kPairs + k] = d_s > 0 ? static_cast<float>(slope * difference / d_s) : 0.0F;
        });
      }
      partial[b] = total;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) total += partial[b];
  return 2 * total;  // both directions
}

template <class S>
void gradient(const TensorView& student, const float* weights, const TensorView& gstudent) {
  const Grid grid{student.h(), student.w()};
  const std::int64_t c = student.c();
  parallel_for(ops::pixel_count(student), pixel_grain(8 * c), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(c) * sizeof(float));
    float* sum = scratch.as<float>();
    for (std::int64_t p = begin; p < end; ++p) {
      const S* s = student.ptr<S>() + p * c;
      for (std::int64_t k = 0; k < c; ++k) sum[k] = 0;
      const auto pull = [&](float weight, const S* other) {
#pragma omp simd
        for (std::int64_t k = 0; k < c; ++k)
          sum[k] += weight * (static_cast<float>(s[k]) - static_cast<float>(other[k]));
      };
      const std::int64_t at = p % (grid.h * grid.w);
      grid.for_pairs(at, 1,
                     [&](std::int64_t k, std::int64_t offset) { pull(weights[p * kPairs + k], s + offset * c); });
      grid.for_pairs(at, -1, [&](std::int64_t k, std::int64_t offset) {
        pull(weights[(p + offset) * kPairs + k], s + offset * c);
      });
      row_scale(1.0F, sum, gstudent.ptr<S>() + p * c, c);
    }
  });
}

}  // namespace

void local_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent) {
  const double factor = local_kd_factor(student.n(), student.h(), student.w());
  const bool wanted = gstudent.defined();
  const Workspace weights(static_cast<std::size_t>(wanted ? kPairs * ops::pixel_count(student) : 0) * sizeof(float));
  visit_fast_dtype("local_kd", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("local_kd", teacher.dtype, [&](auto teacher_tag) {
      const double total = values<decltype(student_tag), decltype(teacher_tag)>(student, teacher, 4 * factor,
                                                                                wanted ? weights.as<float>() : nullptr);
      *loss.ptr<float>() = static_cast<float>(factor * total);
    });
    if (wanted) gradient<decltype(student_tag)>(student, weights.as<float>(), gstudent);
  });
}

}  // namespace limbeck::distill
