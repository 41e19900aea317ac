// Vectorised intra-class variation loss for channels-last maps. Per image four visits of the student, two of the teacher:
//   1 sums of the classes (both maps)      3 the gradients of the centres: weighted sums of the classes again
//   2 cosines with the centres (both)      4 the gradient of every pixel: a mix of its feature, its centre and 3
// Sums over pixels run in double in a fixed number of blocks.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/ifvd_kernels.h"
#include "distill/row_math.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kMostBlocks = 16;

/// sums[slot] = sum over the pixels of the slot of weight(p) x_p.
template <class T, class Weight>
void class_sums(const ClassSlots& classes, const T* x, std::int64_t c, const Weight& weight, double* sums) {
  const auto pixels = static_cast<std::int64_t>(classes.slot.size());
  const auto slots = static_cast<std::int64_t>(classes.count.size());
  const std::int64_t blocks = reduction_blocks(pixels, 128, kMostBlocks);
  const Workspace partial(static_cast<std::size_t>(blocks * slots * c) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double* out = partial.as<double>() + b * slots * c;
      std::fill_n(out, slots * c, 0.0);
      for (std::int64_t p = pixels * b / blocks; p < pixels * (b + 1) / blocks; ++p) {
        const std::int32_t slot = classes.slot[static_cast<std::size_t>(p)];
        if (slot >= 0) row_add(weight(p), x + p * c, out + slot * c, c);
      }
    }
  });
  for (std::int64_t i = 0; i < slots * c; ++i) {
    double sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += partial.as<double>()[b * slots * c + i];
    sums[i] = sum;
  }
}

/// Unit vectors of the centres in f32, their norms, and per pixel the norm of the feature and the cosine.
struct Variation {
  std::vector<float> unit;
  std::vector<double> centre_norm, f_norm, sim;
};

template <class T>
Variation variation(const ClassSlots& classes, const T* x, std::int64_t c) {
  const std::size_t slots = classes.count.size();
  const std::size_t pixels = classes.slot.size();
  Variation v;
  v.unit.resize(slots * static_cast<std::size_t>(c));
  v.centre_norm.resize(slots);
  v.f_norm.resize(pixels);
  v.sim.resize(pixels);
  std::vector<double> centre(v.unit.size());
  class_sums(
      classes, x, c, [](std::int64_t) { return 1.0; }, centre.data());
  for (std::size_t s = 0; s < slots; ++s) {
    double* mu = centre.data() + s * static_cast<std::size_t>(c);
    double squares = 0;
    for (std::int64_t k = 0; k < c; ++k) {
      mu[k] /= classes.count[s] + kIfvdCountEpsilon;
      squares += mu[k] * mu[k];
    }
    v.centre_norm[s] = std::sqrt(squares);
    const double divisor = std::max(v.centre_norm[s], kIfvdLeastNorm);
    for (std::int64_t k = 0; k < c; ++k)
      v.unit[s * static_cast<std::size_t>(c) + static_cast<std::size_t>(k)] = static_cast<float>(mu[k] / divisor);
  }
  parallel_for(static_cast<std::int64_t>(pixels), pixel_grain(2 * c), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const auto at = static_cast<std::size_t>(p);
      const std::int32_t slot = classes.slot[at];
      if (slot < 0) continue;  // never read
      const T* f = x + p * c;
      v.f_norm[at] = std::sqrt(static_cast<double>(row_dot(f, f, c)));
      v.sim[at] = static_cast<double>(row_dot(f, v.unit.data() + slot * c, c)) / std::max(v.f_norm[at], kIfvdLeastNorm);
    }
  });
  return v;
}

template <class S>
void gradient(const ClassSlots& classes, const Variation& v, const std::vector<double>& slope, const S* x,
              std::int64_t c, S* g) {
  const std::size_t slots = classes.count.size();
  std::vector<double> gmu(v.unit.size());
  class_sums(
      classes, x, c,
      [&](std::int64_t p) {
        const auto at = static_cast<std::size_t>(p);
        return slope[at] / std::max(v.f_norm[at], kIfvdLeastNorm);
      },
      gmu.data());
  std::vector<double> along(slots, 0.0);  // sum of slope times cosine: what is taken off along the centre
  for (std::size_t p = 0; p < classes.slot.size(); ++p) {
    if (classes.slot[p] >= 0) along[static_cast<std::size_t>(classes.slot[p])] += slope[p] * v.sim[p];
  }
  std::vector<float> share(v.unit.size());  // what every pixel of the class gets through the centre
  for (std::size_t s = 0; s < slots; ++s) {
    const double divisor = std::max(v.centre_norm[s], kIfvdLeastNorm) * (classes.count[s] + kIfvdCountEpsilon);
    const double off = v.centre_norm[s] > kIfvdLeastNorm ? along[s] : 0.0;
    for (std::size_t k = s * static_cast<std::size_t>(c); k < (s + 1) * static_cast<std::size_t>(c); ++k) {
      share[k] = static_cast<float>((gmu[k] - off * static_cast<double>(v.unit[k])) / divisor);
    }
  }
  parallel_for(static_cast<std::int64_t>(classes.slot.size()), pixel_grain(c),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t p = begin; p < end; ++p) {
                   const auto at = static_cast<std::size_t>(p);
                   const std::int32_t slot = classes.slot[at];
                   S* out = g + p * c;
                   if (slot < 0) {
                     std::fill_n(out, c, static_cast<S>(0.0F));
                     continue;
                   }
                   const double norm = std::max(v.f_norm[at], kIfvdLeastNorm);
                   const auto a = static_cast<float>(slope[at] / norm);
                   const auto b =
                       static_cast<float>(v.f_norm[at] > kIfvdLeastNorm ? -slope[at] * v.sim[at] / (norm * norm) : 0.0);
                   const S* f = x + p * c;
                   const float* mu = v.unit.data() + slot * c;
                   const float* through = share.data() + slot * c;
#pragma omp simd
                   for (std::int64_t k = 0; k < c; ++k) {
                     out[k] = static_cast<S>(a * mu[k] + b * static_cast<float>(f[k]) + through[k]);
                   }
                 }
               });
}

}  // namespace

void ifvd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
              const TensorView& gstudent, const IfvdOptions& options) {
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const std::int64_t pixels = student.h() * student.w();
  const double factor = 1 / static_cast<double>(ops::pixel_count(student));
  double total = 0;
  std::vector<double> slope(static_cast<std::size_t>(pixels));
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const ClassSlots classes(labels, n, options.ignore_index);
    Variation v_s;
    Variation v_t;
    visit_fast_dtype("ifvd", student.dtype,
                     [&](auto tag) { v_s = variation(classes, student.ptr<decltype(tag)>() + n * pixels * c, c); });
    visit_fast_dtype("ifvd", teacher.dtype,
                     [&](auto tag) { v_t = variation(classes, teacher.ptr<decltype(tag)>() + n * pixels * d, d); });
    for (std::size_t p = 0; p < slope.size(); ++p) {
      const double difference = classes.slot[p] < 0 ? 0.0 : v_s.sim[p] - v_t.sim[p];
      total += difference * difference;
      slope[p] = 2 * factor * difference;
    }
    if (!gstudent.defined()) continue;
    visit_fast_dtype("ifvd", student.dtype, [&](auto tag) {
      using S = decltype(tag);
      gradient(classes, v_s, slope, student.ptr<S>() + n * pixels * c, c, gstudent.ptr<S>() + n * pixels * c);
    });
  }
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
