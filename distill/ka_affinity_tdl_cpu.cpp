// Fast torchdistill form of the affinity loss. For vectors a and b of a channel, with d = a - b and s = a + b,
// a a^T - b b^T = (d s^T + s d^T) / 2, so that its squared norm is (|d|^2 |s|^2 + (d.s)^2) / 2 and its product with a
// (d (s.a) + s (d.a)) / 2: sums over positions, three per channel, and a gradient that mixes student and teacher by two
// numbers per channel. Three sweeps: lengths, sums, gradient.
#include <algorithm>
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/ka_affinity_kernels.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kMostBlocks = 32;
constexpr std::int64_t kRun = 256;  // positions that are added in f32

/// sums[term][channel] = sum over positions of what body(position, row) adds to row[term][channel].
template <class Body>
void sum_positions(std::int64_t positions, std::int64_t c, std::int64_t terms, double* sums, const Body& body) {
  const std::int64_t length = terms * c;
  const std::int64_t blocks = reduction_blocks(positions, std::max<std::int64_t>(kRun, 65536 / c), kMostBlocks);
  const Workspace partial(static_cast<std::size_t>(blocks * length) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace floats(static_cast<std::size_t>(length) * sizeof(float));
    float* row = floats.as<float>();
    for (std::int64_t b = begin; b < end; ++b) {
      double* out = partial.as<double>() + b * length;
      std::fill_n(out, length, 0.0);
      const std::int64_t last = positions * (b + 1) / blocks;
      for (std::int64_t first = positions * b / blocks; first < last; first += kRun) {
        std::fill_n(row, length, 0.0F);
        for (std::int64_t i = first; i < std::min(first + kRun, last); ++i) body(i, row);
        for (std::int64_t k = 0; k < length; ++k) out[k] += static_cast<double>(row[k]);
      }
    }
  });
  std::fill_n(sums, length, 0.0);
  for (std::int64_t b = 0; b < blocks; ++b) {
    for (std::int64_t k = 0; k < length; ++k) sums[k] += partial.as<double>()[b * length + k];
  }
}

/// Sum of the norms; gs = slope times its gradient, or null. sums [5][c] and numbers [3][c] are scratch.
template <class S, class T>
double image_loss(const S* s, const T* t, S* gs, std::int64_t positions, std::int64_t c, double slope, double* sums,
                  float* numbers) {
  sum_positions(positions, c, 2, sums, [=](std::int64_t i, float* row) {
    const S* x = s + i * c;
    const T* y = t + i * c;
#pragma omp simd
    for (std::int64_t k = 0; k < c; ++k) {
      const auto a = static_cast<float>(x[k]);
      const auto b = static_cast<float>(y[k]);
      row[k] += a * a;
      row[c + k] += b * b;
    }
  });
  float* ratio = numbers;
  float* of_difference = numbers + c;
  float* of_student = numbers + 2 * c;
  double* divisor = sums + 3 * c;
  double* norm = sums + 4 * c;
  for (std::int64_t k = 0; k < c; ++k) {
    norm[k] = std::sqrt(sums[k]);
    divisor[k] = norm[k] + kAffinityEpsilon;
    ratio[k] = static_cast<float>(divisor[k] / (std::sqrt(sums[c + k]) + kAffinityEpsilon));
  }
  // Differences and sums in units of the student: Note [unscaled difference] in distill/affinity_pairs.h.
  sum_positions(positions, c, 3, sums, [=](std::int64_t i, float* row) {
    const S* x = s + i * c;
    const T* y = t + i * c;
#pragma omp simd
    for (std::int64_t k = 0; k < c; ++k) {
      const auto a = static_cast<float>(x[k]);
      const float b = ratio[k] * static_cast<float>(y[k]);
      const float d = a - b;
      const float sum = a + b;
      row[k] += d * d;
      row[c + k] += sum * sum;
      row[2 * c + k] += d * sum;
    }
  });
  double total = 0;
  for (std::int64_t k = 0; k < c; ++k) {
    const double scale = 1 / (divisor[k] * divisor[k]);
    const double dd = sums[k] * scale;
    const double ss = sums[c + k] * scale;
    const double ds = sums[2 * c + k] * scale;
    const double distance = std::sqrt((dd * ss + ds * ds) / 2);
    total += distance;
    // With respect to a: (d (s.a) + s (d.a)) / distance, a = (d + s) / 2; then through a = x / (|x| + epsilon).
    const double sa = (ds + ss) / 2;
    const double da = (dd + ds) / 2;
    const double along = norm[k] == 0 ? 0 : 2 * sa * da * divisor[k] / norm[k];
    const double factor = distance == 0 || norm[k] == 0 ? 0 : slope / (distance * divisor[k] * divisor[k]);
    of_difference[k] = static_cast<float>(factor * (sa - da));
    of_student[k] = static_cast<float>(factor * (2 * da - along));
  }
  if (gs == nullptr) return total;
  parallel_for(positions, 1 + 16384 / c, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const S* x = s + i * c;
      const T* y = t + i * c;
      S* g = gs + i * c;
#pragma omp simd
      for (std::int64_t k = 0; k < c; ++k) {
        const auto a = static_cast<float>(x[k]);
        g[k] = static_cast<S>(of_difference[k] * (a - ratio[k] * static_cast<float>(y[k])) + of_student[k] * a);
      }
    }
  });
  return total;
}

}  // namespace

void ka_affinity_tdl_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                         const TensorView& gstudent) {
  const std::int64_t c = student.c();
  const std::int64_t positions = student.h() * student.w();
  const double factor = 1 / (static_cast<double>(student.n()) * static_cast<double>(positions));
  const Workspace sums(static_cast<std::size_t>(5 * c) * sizeof(double));
  const Workspace numbers(static_cast<std::size_t>(3 * c) * sizeof(float));
  double total = 0;
  visit_fast_dtype("ka_affinity", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("ka_affinity", teacher.dtype, [&](auto teacher_tag) {
      using S = decltype(student_tag);
      using T = decltype(teacher_tag);
      for (std::int64_t n = 0; n < student.n(); ++n) {
        const std::int64_t at = n * positions * c;
        S* gs = gstudent.defined() ? gstudent.ptr<S>() + at : nullptr;
        total += image_loss(student.ptr<S>() + at, teacher.ptr<T>() + at, gs, positions, c, factor, sums.as<double>(),
                            numbers.as<float>());
      }
    });
  });
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
