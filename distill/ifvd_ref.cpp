// Reference kernel of the intra-class variation loss: the formula of distill/ifvd.h, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/ifvd_kernels.h"

namespace limbeck::distill {
namespace {

double dot(const double* a, const double* b, std::int64_t c) {
  double sum = 0;
  for (std::int64_t k = 0; k < c; ++k) sum += a[k] * b[k];
  return sum;
}

/// Features [M][C], centres [slots][C] and cosines [M] of one image.
struct Variation {
  std::vector<double> f, centre, f_norm, centre_norm, sim;
};

template <class T>
Variation variation(const TensorView& x, std::int64_t n, const ClassSlots& classes) {
  const std::int64_t c = x.c();
  Variation v;
  for (std::int64_t h = 0; h < x.h(); ++h) {
    for (std::int64_t w = 0; w < x.w(); ++w) {
      for (std::int64_t k = 0; k < c; ++k) v.f.push_back(static_cast<double>(x.at<T>(n, k, h, w)));
    }
  }
  v.centre.assign(classes.count.size() * static_cast<std::size_t>(c), 0.0);
  for (std::size_t p = 0; p < classes.slot.size(); ++p) {
    if (classes.slot[p] < 0) continue;
    const auto slot = static_cast<std::size_t>(classes.slot[p]);
    for (std::size_t k = 0; k < static_cast<std::size_t>(c); ++k) {
      v.centre[slot * static_cast<std::size_t>(c) + k] +=
          v.f[p * static_cast<std::size_t>(c) + k] / (classes.count[slot] + kIfvdCountEpsilon);
    }
  }
  for (std::size_t s = 0; s < classes.count.size(); ++s) {
    const double* mu = v.centre.data() + s * static_cast<std::size_t>(c);
    v.centre_norm.push_back(std::sqrt(dot(mu, mu, c)));
  }
  for (std::size_t p = 0; p < classes.slot.size(); ++p) {
    const double* f = v.f.data() + p * static_cast<std::size_t>(c);
    v.f_norm.push_back(std::sqrt(dot(f, f, c)));
    double sim = 0;
    if (classes.slot[p] >= 0) {
      const auto slot = static_cast<std::size_t>(classes.slot[p]);
      sim = dot(f, v.centre.data() + slot * static_cast<std::size_t>(c), c) /
            (std::max(v.f_norm[p], kIfvdLeastNorm) * std::max(v.centre_norm[slot], kIfvdLeastNorm));
    }
    v.sim.push_back(sim);
  }
  return v;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
         const TensorView& gstudent, const IfvdOptions& options) {
  const auto c = static_cast<std::size_t>(student.c());
  const double factor = 1 / static_cast<double>(ops::pixel_count(student));
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const ClassSlots classes(labels, n, options.ignore_index);
    const Variation s = variation<T>(student, n, classes);
    const Variation t = variation<T>(teacher, n, classes);
    std::vector<double> gf(s.f.size(), 0.0);
    std::vector<double> gmu(s.centre.size(), 0.0);
    for (std::size_t p = 0; p < classes.slot.size(); ++p) {
      if (classes.slot[p] < 0) continue;
      const auto slot = static_cast<std::size_t>(classes.slot[p]);
      const double d = s.sim[p] - t.sim[p];
      total += d * d;
      const double slope = 2 * factor * d;
      const double f_norm = std::max(s.f_norm[p], kIfvdLeastNorm);
      const double mu_norm = std::max(s.centre_norm[slot], kIfvdLeastNorm);
      for (std::size_t k = 0; k < c; ++k) {
        const double f = s.f[p * c + k] / f_norm;
        const double mu = s.centre[slot * c + k] / mu_norm;
        // A raised norm is a constant: nothing is taken off along the vector.
        gf[p * c + k] += slope * (mu - (s.f_norm[p] > kIfvdLeastNorm ? s.sim[p] * f : 0)) / f_norm;
        gmu[slot * c + k] += slope * (f - (s.centre_norm[slot] > kIfvdLeastNorm ? s.sim[p] * mu : 0)) / mu_norm;
      }
    }
    if (!gstudent.defined()) continue;
    for (std::size_t p = 0; p < classes.slot.size(); ++p) {
      for (std::size_t k = 0; k < c; ++k) {
        double g = 0;
        if (classes.slot[p] >= 0) {
          const auto slot = static_cast<std::size_t>(classes.slot[p]);
          g = gf[p * c + k] + gmu[slot * c + k] / (classes.count[slot] + kIfvdCountEpsilon);
        }
        const auto pixel = static_cast<std::int64_t>(p);
        gstudent.at<T>(n, static_cast<std::int64_t>(k), pixel / student.w(), pixel % student.w()) = static_cast<T>(g);
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void ifvd_ref(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
              const TensorView& gstudent, const IfvdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "ifvd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("ifvd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, labels, loss, gstudent, options); });
}

}  // namespace limbeck::distill
