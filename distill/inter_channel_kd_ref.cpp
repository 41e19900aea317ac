// Reference kernel of the inter-channel correlation loss: the formula of distill/inter_channel_kd.h, any strides.
#include <vector>

#include "distill/gram_rows.h"
#include "distill/inter_channel_kd_kernels.h"

namespace limbeck::distill {
namespace {

template <class T>
std::vector<double> gram(const TensorView& x, std::int64_t n) {
  std::vector<double> k;
  for (std::int64_t i = 0; i < x.c(); ++i) {
    for (std::int64_t j = 0; j < x.c(); ++j) {
      double sum = 0;
      for (std::int64_t h = 0; h < x.h(); ++h) {
        for (std::int64_t w = 0; w < x.w(); ++w) {
          sum += static_cast<double>(x.at<T>(n, i, h, w)) * static_cast<double>(x.at<T>(n, j, h, w));
        }
      }
      k.push_back(sum);
    }
  }
  return k;
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const InterChannelKdOptions& options) {
  const std::int64_t c = student.c();
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    std::vector<double> k_s = gram<T>(student, n);
    std::vector<double> k_t = gram<T>(teacher, n);
    total +=
        row_normalised_gram_loss(c, inter_channel_factor(student, options), gstudent.defined(), k_s.data(), k_t.data());
    if (!gstudent.defined()) continue;
    for (std::int64_t i = 0; i < c; ++i) {
      for (std::int64_t h = 0; h < student.h(); ++h) {
        for (std::int64_t w = 0; w < student.w(); ++w) {
          double sum = 0;
          for (std::int64_t j = 0; j < c; ++j) {
            sum += k_s[static_cast<std::size_t>(i * c + j)] * static_cast<double>(student.at<T>(n, j, h, w));
          }
          gstudent.at<T>(n, i, h, w) = static_cast<T>(sum);
        }
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(total);
}

}  // namespace

void inter_channel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const InterChannelKdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "inter_channel_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("inter_channel_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

}  // namespace limbeck::distill
