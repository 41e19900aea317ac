// Reference kernel of the squared distance between feature maps: the formula of distill/feature_mse.h. The maps are
// dense and equal in shape, hence alike in memory.
#include "distill/feature_mse_kernels.h"

namespace limbeck::distill {

void feature_mse_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, double factor) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "feature_mse", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("feature_mse", student.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto difference = [&](std::int64_t i) {
      return static_cast<double>(student.ptr<T>()[i]) - static_cast<double>(teacher.ptr<T>()[i]);
    };
    double sum = 0;
    for (std::int64_t i = 0; i < student.numel(); ++i) sum += difference(i) * difference(i);
    *loss.ptr<T>() = static_cast<T>(factor * sum);
    if (!gstudent.defined()) return;
    for (std::int64_t i = 0; i < student.numel(); ++i)
      gstudent.ptr<T>()[i] = static_cast<T>(2 * factor * difference(i));
  });
}

}  // namespace limbeck::distill
