// Reference kernel of the pair-wise similarity loss: the formula of distill/pairwise_kd.h, any strides, f32 and f64.
#include <cmath>
#include <vector>

#include "distill/pairwise_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// The pooled, normalised vectors of one image and where each number came from.
struct Nodes {
  std::vector<double> f;           // [M'][C]
  std::vector<double> norm;        // [M']
  std::vector<std::int64_t> from;  // [M'][C]: h * W + w of the winner
};

template <class T>
Nodes nodes_of(const TensorView& x, std::int64_t n, const PairwiseWindows& win) {
  Nodes out;
  for (std::int64_t i = 0; i < win.count(); ++i) {
    const std::int64_t top = i / win.columns * win.kernel_h;
    const std::int64_t left = i % win.columns * win.kernel_w;
    double squares = 0;
    for (std::int64_t c = 0; c < x.c(); ++c) {
      std::int64_t best = top * x.w() + left;
      T largest = x.at<T>(n, c, top, left);
      for (std::int64_t h = top; h < std::min(top + win.kernel_h, x.h()); ++h) {
        for (std::int64_t w = left; w < std::min(left + win.kernel_w, x.w()); ++w) {
          const T v = x.at<T>(n, c, h, w);
          if (v > largest || v != v) {
            largest = v;
            best = h * x.w() + w;
          }
        }
      }
      out.f.push_back(static_cast<double>(largest));
      out.from.push_back(best);
      squares += static_cast<double>(largest) * static_cast<double>(largest);
    }
    out.norm.push_back(std::sqrt(squares));
    for (std::int64_t c = 0; c < x.c(); ++c) {
      out.f[static_cast<std::size_t>(i * x.c() + c)] /= out.norm.back() + kPairwiseEpsilon;
    }
  }
  return out;
}

double dot(const std::vector<double>& f, std::int64_t i, std::int64_t j, std::int64_t c) {
  double sum = 0;
  for (std::int64_t k = 0; k < c; ++k)
    sum += f[static_cast<std::size_t>(i * c + k)] * f[static_cast<std::size_t>(j * c + k)];
  return sum;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const PairwiseKdOptions& options) {
  const PairwiseWindows win(student.h(), student.w(), options);
  const std::int64_t m = win.count();
  const std::int64_t c = student.c();
  const double factor = 1 / (static_cast<double>(student.n()) * static_cast<double>(m) * static_cast<double>(m));
  double total = 0;
  std::vector<double> g(static_cast<std::size_t>(c));
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const Nodes s = nodes_of<T>(student, n, win);
    const Nodes t = nodes_of<T>(teacher, n, win);
    if (gstudent.defined()) {
      for (std::int64_t k = 0; k < c; ++k) {
        for (std::int64_t h = 0; h < student.h(); ++h) {
          for (std::int64_t w = 0; w < student.w(); ++w) gstudent.at<T>(n, k, h, w) = T(0);
        }
      }
    }
    for (std::int64_t i = 0; i < m; ++i) {
      std::fill(g.begin(), g.end(), 0.0);
      for (std::int64_t j = 0; j < m; ++j) {
        const double d = dot(s.f, i, j, c) - dot(t.f, i, j, teacher.c());
        total += d * d;
        for (std::int64_t k = 0; k < c; ++k) {
          g[static_cast<std::size_t>(k)] += 4 * factor * d * s.f[static_cast<std::size_t>(j * c + k)];
        }
      }
      if (!gstudent.defined()) continue;
      const double norm = s.norm[static_cast<std::size_t>(i)];
      if (norm == 0) continue;  // the map's gradient is already 0
      const double divisor = norm + kPairwiseEpsilon;
      double along = 0;
      if (!options.detach_norm) {
        for (std::int64_t k = 0; k < c; ++k)
          along += divisor / norm * g[static_cast<std::size_t>(k)] * s.f[static_cast<std::size_t>(i * c + k)];
      }
      for (std::int64_t k = 0; k < c; ++k) {
        const auto at = static_cast<std::size_t>(i * c + k);
        const double gp = (g[static_cast<std::size_t>(k)] - along * s.f[at]) / divisor;
        gstudent.at<T>(n, k, s.from[at] / student.w(), s.from[at] % student.w()) = static_cast<T>(gp);
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void pairwise_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const PairwiseKdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "pairwise_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("pairwise_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

}  // namespace limbeck::distill
