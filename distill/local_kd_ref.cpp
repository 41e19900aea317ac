// Reference kernel of the local similarity loss: the formula of distill/local_kd.h, any strides, f32 and f64.
#include <cmath>

#include "distill/local_kd_kernels.h"

namespace limbeck::distill {
namespace {

template <class T>
double distance(const TensorView& x, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t i, std::int64_t j) {
  double sum = 0;
  for (std::int64_t c = 0; c < x.c(); ++c) {
    const double d = static_cast<double>(x.at<T>(n, c, h, w)) - static_cast<double>(x.at<T>(n, c, i, j));
    sum += d * d;
  }
  return std::sqrt(sum);
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent) {
  const std::int64_t rows = student.h();
  const std::int64_t columns = student.w();
  const double factor = local_kd_factor(student.n(), rows, columns);
  const auto for_neighbours = [&](std::int64_t h, std::int64_t w, const auto& body) {
    for (std::int64_t i = h - 1; i <= h + 1; ++i) {
      for (std::int64_t j = w - 1; j <= w + 1; ++j) {
        const bool inside = i >= 0 && i < rows && j >= 0 && j < columns;
        if (inside && (i != h || j != w)) body(i, j);
      }
    }
  };
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    for (std::int64_t h = 0; h < rows; ++h) {
      for (std::int64_t w = 0; w < columns; ++w) {
        if (gstudent.defined()) {
          for (std::int64_t c = 0; c < student.c(); ++c) gstudent.at<T>(n, c, h, w) = T(0);
        }
        for_neighbours(h, w, [&](std::int64_t i, std::int64_t j) {
          const double d_s = distance<T>(student, n, h, w, i, j);
          const double difference = d_s - distance<T>(teacher, n, h, w, i, j);
          total += difference * difference;
          if (!gstudent.defined() || d_s == 0) return;
          const double weight = 4 * factor * difference / d_s;
          for (std::int64_t c = 0; c < student.c(); ++c) {
            const double step =
                static_cast<double>(student.at<T>(n, c, h, w)) - static_cast<double>(student.at<T>(n, c, i, j));
            T& g = gstudent.at<T>(n, c, h, w);
            g = static_cast<T>(static_cast<double>(g) + weight * step);
          }
        });
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void local_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "local_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("local_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent); });
}

}  // namespace limbeck::distill
