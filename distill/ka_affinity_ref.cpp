// Reference kernel of the affinity loss: the formulas of distill/ka_affinity.h with both matrices written out, any
// strides, f32 and f64.
#include <cmath>
#include <vector>

#include "distill/ka_affinity_kernels.h"

namespace limbeck::distill {
namespace {

using Matrix = std::vector<std::vector<double>>;

/// The rows of one image, normalised, and their lengths: positions with their channels, or channels with their
/// positions.
struct Rows {
  Matrix f;
  std::vector<double> norm;
};

template <class T>
Rows rows_of(const TensorView& x, std::int64_t n, bool channels) {
  const std::int64_t m = x.h() * x.w();
  Rows out;
  for (std::int64_t i = 0; i < (channels ? x.c() : m); ++i) {
    std::vector<double> row;
    double squares = 0;
    for (std::int64_t j = 0; j < (channels ? m : x.c()); ++j) {
      const std::int64_t c = channels ? i : j;
      const std::int64_t position = channels ? j : i;
      row.push_back(static_cast<double>(x.at<T>(n, c, position / x.w(), position % x.w())));
      squares += row.back() * row.back();
    }
    out.norm.push_back(std::sqrt(squares));
    for (double& v : row) v /= out.norm.back() + kAffinityEpsilon;
    out.f.push_back(std::move(row));
  }
  return out;
}

/// Gradient of the rows before they were normalised, given that of the normalised ones.
void normalise_backward(const Rows& x, Matrix& g) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double divisor = x.norm[i] + kAffinityEpsilon;
    double along = 0;
    if (x.norm[i] > 0) {
      for (std::size_t k = 0; k < g[i].size(); ++k) along += g[i][k] * x.f[i][k] * divisor / x.norm[i];
    }
    for (std::size_t k = 0; k < g[i].size(); ++k) {
      g[i][k] = x.norm[i] == 0 ? 0 : (g[i][k] - along * x.f[i][k]) / divisor;
    }
  }
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

/// Sum over i of the squared or plain norm of row i of A_S - A_T; g = its gradient with respect to s.f.
double positions_loss(const Rows& s, const Rows& t, bool squared, Matrix& g) {
  const std::size_t m = s.f.size();
  Matrix d(m, std::vector<double>(m));
  std::vector<double> weight(m);  // derivative of the row's norm is weight times the row
  double total = 0;
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      const double a_s = dot(s.f[i], s.f[j]);
      const double a_t = dot(t.f[i], t.f[j]);
      d[i][j] = a_s - a_t;
    }
    const double squares = dot(d[i], d[i]);
    const double norm = std::sqrt(squares);
    total += squared ? squares : norm;
    weight[i] = squared ? 2 : norm == 0 ? 0 : 1 / norm;
  }
  g.assign(m, std::vector<double>(s.f[0].size()));
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      const double both = d[i][j] * (weight[i] + weight[j]);
      for (std::size_t k = 0; k < g[i].size(); ++k) g[i][k] += both * s.f[j][k];
    }
  }
  return total;
}

/// Sum over c of ||a a^T - b b^T||_F for the channels a of s and b of t; g = its gradient with respect to s.f.
double channels_loss(const Rows& s, const Rows& t, Matrix& g) {
  double total = 0;
  g.assign(s.f.size(), {});
  for (std::size_t c = 0; c < s.f.size(); ++c) {
    const auto& a = s.f[c];
    const auto& b = t.f[c];
    const std::size_t m = a.size();
    double squares = 0;
    std::vector<double> product(m);  // (a a^T - b b^T) a
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        // a a^T - b b^T, in the form that is exactly 0 for a = b whatever the compiler fuses
        const double d = ((a[i] - b[i]) * (a[j] + b[j]) + (a[i] + b[i]) * (a[j] - b[j])) / 2;
        squares += d * d;
        product[i] += d * a[j];
      }
    }
    const double norm = std::sqrt(squares);
    total += norm;
    for (std::size_t i = 0; i < m; ++i) g[c].push_back(norm == 0 ? 0 : 2 * product[i] / norm);
  }
  return total;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         KaAffinityReduce reduce) {
  const bool channels = reduce == KaAffinityReduce::kTdl;
  const std::int64_t m = student.h() * student.w();
  double factor = 1 / (static_cast<double>(student.n()) * static_cast<double>(m));
  if (reduce == KaAffinityReduce::kMeanSquare) factor /= static_cast<double>(m);
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const Rows s = rows_of<T>(student, n, channels);
    const Rows t = rows_of<T>(teacher, n, channels);
    Matrix g;
    total += channels ? channels_loss(s, t, g) : positions_loss(s, t, reduce == KaAffinityReduce::kMeanSquare, g);
    if (!gstudent.defined()) continue;
    normalise_backward(s, g);
    for (std::int64_t c = 0; c < student.c(); ++c) {
      for (std::int64_t i = 0; i < m; ++i) {
        const double v = channels ? g[static_cast<std::size_t>(c)][static_cast<std::size_t>(i)]
                                  : g[static_cast<std::size_t>(i)][static_cast<std::size_t>(c)];
        gstudent.at<T>(n, c, i / student.w(), i % student.w()) = static_cast<T>(factor * v);
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void ka_affinity_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const KaAffinityOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "ka_affinity", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("ka_affinity", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options.reduce); });
}

}  // namespace limbeck::distill
