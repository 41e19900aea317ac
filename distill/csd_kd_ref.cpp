// Reference kernel of the category-wise similarity loss: the formula of distill/csd_kd.h, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/csd_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// Calls body(window, h, w, pixels of the window) for every pixel.
template <class Body>
void for_pixels(const TensorView& x, const Body& body) {
  const std::int64_t columns = (x.w() + 1) / 2;
  for (std::int64_t h = 0; h < x.h(); ++h) {
    for (std::int64_t w = 0; w < x.w(); ++w) {
      const std::int64_t rows_in = std::min<std::int64_t>(2, x.h() - h / 2 * 2);
      const std::int64_t columns_in = std::min<std::int64_t>(2, x.w() - w / 2 * 2);
      body(h / 2 * columns + w / 2, h, w, rows_in * columns_in);
    }
  }
}

/// softmax over the positions of every pooled channel, [C][M].
template <class T>
std::vector<double> distributions(const TensorView& x, std::int64_t n, double tau, std::int64_t m) {
  std::vector<double> p(static_cast<std::size_t>(x.c() * m), 0.0);
  for (std::int64_t c = 0; c < x.c(); ++c) {
    double* row = p.data() + c * m;
    for_pixels(x, [&](std::int64_t i, std::int64_t h, std::int64_t w, std::int64_t size) {
      row[i] += static_cast<double>(x.at<T>(n, c, h, w)) / static_cast<double>(size);
    });
    const double largest = *std::max_element(row, row + m);
    double sum = 0;
    for (std::int64_t i = 0; i < m; ++i) sum += row[i] = std::exp((row[i] - largest) / tau);
    for (std::int64_t i = 0; i < m; ++i) row[i] /= sum;
  }
  return p;
}

double overlap(const std::vector<double>& p, std::int64_t i, std::int64_t j, std::int64_t m) {
  double sum = 0;
  for (std::int64_t k = 0; k < m; ++k)
    sum += p[static_cast<std::size_t>(i * m + k)] * p[static_cast<std::size_t>(j * m + k)];
  return sum;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const CsdKdOptions& options) {
  const std::int64_t c = student.c();
  const std::int64_t m = ((student.h() + 1) / 2) * ((student.w() + 1) / 2);
  const double factor = 1 / static_cast<double>(student.n() * c * c);
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const auto p_s = distributions<T>(student, n, options.tau, m);
    const auto p_t = distributions<T>(teacher, n, options.tau, m);
    for (std::int64_t i = 0; i < c; ++i) {
      std::vector<double> gp(static_cast<std::size_t>(m), 0.0);
      for (std::int64_t j = 0; j < c; ++j) {
        const double d = overlap(p_s, i, j, m) - overlap(p_t, i, j, m);
        total += d * d;
        for (std::int64_t k = 0; k < m; ++k)
          gp[static_cast<std::size_t>(k)] += 4 * factor * d * p_s[static_cast<std::size_t>(j * m + k)];
      }
      if (!gstudent.defined()) continue;
      const double* p = p_s.data() + i * m;
      double mean = 0;
      for (std::int64_t k = 0; k < m; ++k) mean += p[k] * gp[static_cast<std::size_t>(k)];
      for_pixels(student, [&](std::int64_t k, std::int64_t h, std::int64_t w, std::int64_t size) {
        const double gz = p[k] * (gp[static_cast<std::size_t>(k)] - mean) / options.tau;
        gstudent.at<T>(n, i, h, w) = static_cast<T>(gz / static_cast<double>(size));
      });
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void csd_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                const TensorView& gstudent, const CsdKdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "csd_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("csd_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

}  // namespace limbeck::distill
