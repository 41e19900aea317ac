// Vectorised inter-channel correlation loss: per image two products over all positions (distill/channel_gram.h) around the
// work on C x C numbers. The student is read twice, the teacher once.
#include "core/memory.h"
#include "distill/channel_gram.h"
#include "distill/gram_rows.h"
#include "distill/inter_channel_kd_kernels.h"

namespace limbeck::distill {

void inter_channel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const InterChannelKdOptions& options) {
  const std::int64_t c = student.c();
  const std::int64_t pixels = student.h() * student.w();
  const std::int64_t teacher_pixels = teacher.h() * teacher.w();
  const double factor = inter_channel_factor(student, options);
  const Workspace matrices(static_cast<std::size_t>(2 * c * c) * sizeof(double));
  const Workspace weights(static_cast<std::size_t>(c * c) * sizeof(float));
  double* k_s = matrices.as<double>();
  double* k_t = k_s + c * c;
  float* d = weights.as<float>();
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    visit_fast_dtype("inter_channel_kd", student.dtype,
                     [&](auto tag) { channel_gram(student.ptr<decltype(tag)>() + n * pixels * c, pixels, c, k_s); });
    visit_fast_dtype("inter_channel_kd", teacher.dtype, [&](auto tag) {
      channel_gram(teacher.ptr<decltype(tag)>() + n * teacher_pixels * c, teacher_pixels, c, k_t);
    });
    total += row_normalised_gram_loss(c, factor, gstudent.defined(), k_s, k_t);
    if (!gstudent.defined()) continue;
    for (std::int64_t i = 0; i < c * c; ++i) d[i] = static_cast<float>(k_s[i]);
    visit_fast_dtype("inter_channel_kd", student.dtype, [&](auto tag) {
      using T = decltype(tag);
      channel_mix(d, student.ptr<T>() + n * pixels * c, pixels, c, gstudent.ptr<T>() + n * pixels * c);
    });
  }
  *loss.ptr<float>() = static_cast<float>(total);
}

}  // namespace limbeck::distill
