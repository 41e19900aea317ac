// Reference kernels of the inter-class similarity loss: the formulas of distill/inter_class_kd.h, any strides.
//
// Note [released code]
//   The released AICSD code differs from the paper in five points; weights such as 9500 were tuned with it:
//     p_i = softmax(x_i / tau) over the H rows of each column w, not over H W;
//     v_ij = 1/N sum_{n,h,w} p_j (ln p_j - p_i): a divergence whose second argument is a probability where its
//     logarithm belongs, so the diagonal is not 0; only i <= j is computed, and [j,i] is set to [i,j]; the rows are
//     normalised; the mean over C^2 is divided by N once more.
//   The code has 21 in the place of C.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/inter_class_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// ln softmax of one image, [c][m] with m = h * W + w. `columns`: over h for every w, otherwise over all positions.
template <class T>
std::vector<double> log_softmax_of(const TensorView& x, std::int64_t n, double tau, bool columns) {
  std::vector<double> out;
  const std::int64_t groups = columns ? x.w() : 1;
  for (std::int64_t c = 0; c < x.c(); ++c) {
    const auto first = static_cast<std::ptrdiff_t>(out.size());
    for (std::int64_t h = 0; h < x.h(); ++h) {
      for (std::int64_t w = 0; w < x.w(); ++w) out.push_back(static_cast<double>(x.at<T>(n, c, h, w)) / tau);
    }
    double* row = out.data() + first;
    const std::int64_t m = x.h() * x.w();
    for (std::int64_t g = 0; g < groups; ++g) {
      double top = row[g];
      for (std::int64_t i = g; i < m; i += groups) top = std::max(top, row[i]);
      double sum = 0;
      for (std::int64_t i = g; i < m; i += groups) sum += std::exp(row[i] - top);
      for (std::int64_t i = g; i < m; i += groups) row[i] = row[i] - top - std::log(sum);
    }
  }
  return out;
}

/// The matrix of one image from l = ln p.
std::vector<double> matrix_of(const std::vector<double>& l, std::int64_t c, bool code) {
  const std::int64_t m = static_cast<std::int64_t>(l.size()) / c;
  std::vector<double> k(static_cast<std::size_t>(c * c), 0.0);
  for (std::int64_t i = 0; i < c; ++i) {
    for (std::int64_t j = 0; j < c; ++j) {
      const double* li = l.data() + (code ? std::min(i, j) : i) * m;
      const double* lj = l.data() + (code ? std::max(i, j) : j) * m;
      double sum = 0;
      for (std::int64_t p = 0; p < m; ++p) {
        if (code) {
          sum += std::exp(lj[p]) * (lj[p] - std::exp(li[p]));
        } else if (i != j && std::exp(li[p]) > 0) {
          sum += std::exp(li[p]) * (li[p] - lj[p]);
        }
      }
      k[static_cast<std::size_t>(i * c + j)] = sum;
    }
  }
  return k;
}

/// dL/dl of one image from d = dL/dK.
std::vector<double> slope_of(const std::vector<double>& l, const double* d, std::int64_t c, bool code) {
  const std::int64_t m = static_cast<std::int64_t>(l.size()) / c;
  std::vector<double> g(l.size(), 0.0);
  for (std::int64_t i = 0; i < c; ++i) {
    for (std::int64_t j = 0; j < c; ++j) {
      const double slope = d[i * c + j];
      const std::int64_t a = (code ? std::min(i, j) : i) * m;
      const std::int64_t b = (code ? std::max(i, j) : j) * m;
      for (std::int64_t p = 0; p < m; ++p) {
        const auto at_a = static_cast<std::size_t>(a + p);
        const auto at_b = static_cast<std::size_t>(b + p);
        const double pa = std::exp(l[at_a]);
        const double pb = std::exp(l[at_b]);
        if (code) {
          g[at_b] += slope * pb * (l[at_b] - pa + 1);
          g[at_a] -= slope * pb * pa;
        } else if (pa > 0) {
          g[at_a] += slope * pa * (l[at_a] - l[at_b] + 1);
          g[at_b] -= slope * pa;
        }
      }
    }
  }
  return g;
}

/// Back through the log-softmax: gx = (g - p sum g) / tau, the sum over the positions of one softmax.
template <class T>
void store_gradient(const std::vector<double>& l, const std::vector<double>& g, double tau, bool columns,
                    std::int64_t n, const TensorView& gx) {
  const std::int64_t groups = columns ? gx.w() : 1;
  const std::int64_t m = gx.h() * gx.w();
  for (std::int64_t c = 0; c < gx.c(); ++c) {
    std::vector<double> sum(static_cast<std::size_t>(groups), 0.0);
    for (std::int64_t p = 0; p < m; ++p)
      sum[static_cast<std::size_t>(p % groups)] += g[static_cast<std::size_t>(c * m + p)];
    for (std::int64_t p = 0; p < m; ++p) {
      const auto at = static_cast<std::size_t>(c * m + p);
      gx.at<T>(n, c, p / gx.w(), p % gx.w()) =
          static_cast<T>((g[at] - std::exp(l[at]) * sum[static_cast<std::size_t>(p % groups)]) / tau);
    }
  }
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const IcsdOptions& options) {
  const std::int64_t c = student.c();
  const bool code = options.mode == IcsdMode::kOfficialCode;
  std::vector<double> k_s;
  std::vector<double> k_t;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const auto s = matrix_of(log_softmax_of<T>(student, n, options.tau, code), c, code);
    const auto t = matrix_of(log_softmax_of<T>(teacher, n, options.tau, code), c, code);
    k_s.insert(k_s.end(), s.begin(), s.end());
    k_t.insert(k_t.end(), t.begin(), t.end());
  }
  *loss.ptr<T>() = static_cast<T>(compare_matrices(options, student.n(), c, k_s.data(), k_t.data()));
  if (!gstudent.defined()) return;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const auto l = log_softmax_of<T>(student, n, options.tau, code);
    store_gradient<T>(l, slope_of(l, k_s.data() + n * c * c, c, code), options.tau, code, n, gstudent);
  }
}

}  // namespace

void icsd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
              const IcsdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "icsd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("icsd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

void inter_class_similarity_ref(const TensorView& logits, double tau, const TensorView& matrix) {
  visit_reference_dtype("inter_class_similarity", logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::int64_t c = logits.c();
    std::vector<double> k;
    for (std::int64_t n = 0; n < logits.n(); ++n) {
      const auto one = matrix_of(log_softmax_of<T>(logits, n, tau, false), c, false);
      k.insert(k.end(), one.begin(), one.end());
    }
    average_matrices(logits.n(), c * c, k.data());
    for (std::int64_t i = 0; i < c * c; ++i) matrix.ptr<T>()[i] = static_cast<T>(k[static_cast<std::size_t>(i)]);
  });
}

}  // namespace limbeck::distill
