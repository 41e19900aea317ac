// Reference kernel of the similarity-preserving loss: the formula of distill/batch_similarity_kd.h, f32 and f64.
#include <vector>

#include "distill/batch_similarity_kd_kernels.h"
#include "distill/gram_rows.h"

namespace limbeck::distill {
namespace {

template <class T>
std::vector<double> gram(const TensorView& f) {
  const std::int64_t n = f.shape[0];
  std::vector<double> k(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t e = 0; e < f.shape[1]; ++e)
        sum += static_cast<double>(f.at<T>(i, e)) * static_cast<double>(f.at<T>(j, e));
      k[static_cast<std::size_t>(i * n + j)] = sum;
    }
  }
  return k;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent) {
  const std::int64_t n = student.shape[0];
  std::vector<double> k_s = gram<T>(student);
  std::vector<double> k_t = gram<T>(teacher);
  const double factor = 1 / static_cast<double>(n * n);
  *loss.ptr<T>() = static_cast<T>(row_normalised_gram_loss(n, factor, gstudent.defined(), k_s.data(), k_t.data()));
  if (!gstudent.defined()) return;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t e = 0; e < student.shape[1]; ++e) {
      double sum = 0;
      for (std::int64_t j = 0; j < n; ++j)
        sum += k_s[static_cast<std::size_t>(i * n + j)] * static_cast<double>(student.at<T>(j, e));
      gstudent.at<T>(i, e) = static_cast<T>(sum);
    }
  }
}

}  // namespace

void batch_similarity_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                             const TensorView& gstudent) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "batch_similarity_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("batch_similarity_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent); });
}

}  // namespace limbeck::distill
