// Reference kernel of the partial distance: the formula of distill/ofd_kd.h, any strides, f32 and f64.
#include "distill/ofd_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// s - u where the element counts, else 0.
template <class T>
double distance(T student, T teacher, double margin) {
  const auto s = static_cast<double>(student);
  const auto t = static_cast<double>(teacher);
  const double u = t < margin ? margin : t;  // a NaN stays
  const bool silent = u <= 0 && s <= u;
  return silent ? 0 : s - u;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
         const TensorView& gstudent) {
  const auto samples = static_cast<double>(student.n());
  const auto for_elements = [&](const auto& body) {
    for (std::int64_t n = 0; n < student.n(); ++n) {
      for (std::int64_t c = 0; c < student.c(); ++c) {
        for (std::int64_t h = 0; h < student.h(); ++h) {
          for (std::int64_t w = 0; w < student.w(); ++w) {
            body(n, c, h, w, distance(student.at<T>(n, c, h, w), teacher.at<T>(n, c, h, w), margin.at<double>(c)));
          }
        }
      }
    }
  };
  // Two loops: in one, the compiler would round the sum differently with and without the gradient.
  double total = 0;
  for_elements([&](auto, auto, auto, auto, double d) { total += d * d; });
  *loss.ptr<T>() = static_cast<T>(total / samples);
  if (!gstudent.defined()) return;
  for_elements(
      [&](auto n, auto c, auto h, auto w, double d) { gstudent.at<T>(n, c, h, w) = static_cast<T>(2 * d / samples); });
}

}  // namespace

void ofd_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                const TensorView& gstudent) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "ofd_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("ofd_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, margin, loss, gstudent); });
}

}  // namespace limbeck::distill
