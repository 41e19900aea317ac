// Reference kernel of the adaptation loss: the formula of distill/ka_adapt.h, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/ka_adapt_kernels.h"

namespace limbeck::distill {
namespace {

/// Places of the numbers of vector v in a map.
struct Place {
  std::int64_t n, c, h, w;
};
std::vector<Place> places_of(const TensorView& map, KaScope scope, std::int64_t v) {
  std::vector<Place> places;
  const std::int64_t m = map.h() * map.w();
  const bool image = scope == KaScope::kImage;
  for (std::int64_t c = 0; c < map.c(); ++c) {
    for (std::int64_t i = image ? 0 : v % m; i < (image ? m : v % m + 1); ++i) {
      places.push_back({image ? v : v / m, c, i / map.w(), i % map.w()});
    }
  }
  return places;
}

/// (sum |x|^e)^(1/e), with the largest magnitude taken out so that no power overflows.
double norm(const std::vector<double>& x, double e) {
  double largest = 0;
  for (const double v : x) largest = std::max(largest, std::abs(v));
  if (largest == 0) largest = 1;
  double sum = 0;
  for (const double v : x) sum += std::pow(std::abs(v) / largest, e);
  return largest * std::pow(sum, 1 / e);
}

/// Derivative of norm(x, e) with respect to the element v of x; 0 where the norm is 0.
double slope(double v, double norm, double e) {
  if (norm == 0 || v == 0) return 0;
  return std::copysign(std::pow(std::abs(v) / norm, e - 1), v);
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const KaAdaptOptions& options) {
  const double factor = ka_adapt_factor(student, options);
  double total = 0;
  for (std::int64_t v = 0; v < ka_vector_count(student, options.scope); ++v) {
    const auto places = places_of(student, options.scope, v);
    std::vector<double> s;
    std::vector<double> t;
    for (const Place& at : places) {
      s.push_back(static_cast<double>(student.at<T>(at.n, at.c, at.h, at.w)));
      t.push_back(static_cast<double>(teacher.at<T>(at.n, at.c, at.h, at.w)));
    }
    const double norm_s = norm(s, options.q);
    const double divisor_s = norm_s + kKaEpsilon;
    const double divisor_t = norm(t, options.q) + kKaEpsilon;
    std::vector<double> d;
    for (std::size_t i = 0; i < s.size(); ++i) {
      const double a = s[i] / divisor_s;
      const double b = t[i] / divisor_t;
      d.push_back(a - b);
    }
    const double distance = norm(d, options.p);
    total += distance;
    if (!gstudent.defined()) continue;
    double along = 0;
    for (std::size_t i = 0; i < s.size(); ++i) along += slope(d[i], distance, options.p) * s[i] / divisor_s;
    for (std::size_t i = 0; i < s.size(); ++i) {
      const Place& at = places[i];
      const double g = slope(d[i], distance, options.p) - along * slope(s[i], norm_s, options.q);
      gstudent.at<T>(at.n, at.c, at.h, at.w) = norm_s == 0 ? T(0) : static_cast<T>(factor * g / divisor_s);
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void ka_adapt_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent, const KaAdaptOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "ka_adapt", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("ka_adapt", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

}  // namespace limbeck::distill
