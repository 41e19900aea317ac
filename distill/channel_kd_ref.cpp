// Reference kernel of the channel-wise distillation loss: the formula of distill/channel_kd.h, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/channel_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// ln of the softmax over the positions of one channel at temperature tau.
template <class T>
void log_softmax_channel(const TensorView& x, std::int64_t n, std::int64_t c, double tau, std::vector<double>& out) {
  std::size_t m = 0;
  for (std::int64_t h = 0; h < x.h(); ++h) {
    for (std::int64_t w = 0; w < x.w(); ++w) out[m++] = static_cast<double>(x.at<T>(n, c, h, w)) / tau;
  }
  const double largest = *std::max_element(out.begin(), out.end());
  double sum = 0;
  for (const double v : out) sum += std::exp(v - largest);
  for (double& v : out) v = v - largest - std::log(sum);
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
         const ChannelKdOptions& options) {
  const double maps = channel_kd_divisor(student, options);
  const double tau = options.tau;
  const auto positions = static_cast<std::size_t>(student.h() * student.w());
  std::vector<double> ln_s(positions);
  std::vector<double> ln_t(positions);
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    for (std::int64_t c = 0; c < student.c(); ++c) {
      log_softmax_channel<T>(student, n, c, tau, ln_s);
      log_softmax_channel<T>(teacher, n, c, tau, ln_t);
      std::size_t m = 0;
      for (std::int64_t h = 0; h < student.h(); ++h) {
        for (std::int64_t w = 0; w < student.w(); ++w, ++m) {
          const double p_t = std::exp(ln_t[m]);
          const double p_s = std::exp(ln_s[m]);
          if (p_t > 0) total += p_t * ((options.cross_entropy_form ? 0.0 : ln_t[m]) - ln_s[m]);
          if (gstudent.defined()) gstudent.at<T>(n, c, h, w) = static_cast<T>(tau / maps * (p_s - p_t));
        }
      }
    }
  }
  *loss.ptr<T>() = static_cast<T>(tau * tau / maps * total);
}

}  // namespace

void channel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const ChannelKdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "channel_kd", "the reference takes one type, got {} and {}",
                name_of(student.dtype), name_of(teacher.dtype));
  visit_reference_dtype("channel_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, loss, gstudent, options); });
}

}  // namespace limbeck::distill
