// Reference kernel of the pixel-wise distillation loss: the formulas of distill/pixel_kd.h, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "distill/pixel_kd_kernels.h"
#include "ops/map_view.h"

namespace limbeck::distill {
namespace {

/// ln of the softmax over the channels of one pixel at temperature tau.
template <class T>
void log_softmax_pixel(const TensorView& x, std::int64_t n, std::int64_t h, std::int64_t w, double tau,
                       std::vector<double>& out) {
  const std::int64_t channels = x.c();
  const auto scaled = [&](std::int64_t c) { return static_cast<double>(x.at<T>(n, c, h, w)) / tau; };
  double largest = scaled(0);
  for (std::int64_t c = 1; c < channels; ++c) largest = std::max(largest, scaled(c));
  double sum = 0;
  for (std::int64_t c = 0; c < channels; ++c) sum += std::exp(scaled(c) - largest);
  for (std::int64_t c = 0; c < channels; ++c) out[static_cast<std::size_t>(c)] = scaled(c) - largest - std::log(sum);
}

template <class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
         const TensorView& gstudent, const PixelKdOptions& options) {
  const auto is_valid = [&](std::int64_t n, std::int64_t h, std::int64_t w) {
    return !labels.defined() || ops::label_at(labels, n, h, w) != options.ignore_index;
  };
  const auto for_pixels = [&](const auto& body) {
    for (std::int64_t n = 0; n < student.n(); ++n) {
      for (std::int64_t h = 0; h < student.h(); ++h) {
        for (std::int64_t w = 0; w < student.w(); ++w) body(n, h, w);
      }
    }
  };
  std::int64_t valid = 0;
  for_pixels([&](std::int64_t n, std::int64_t h, std::int64_t w) { valid += is_valid(n, h, w) ? 1 : 0; });

  const double factor = pixel_kd_factor(student, valid, options);
  const bool cross_entropy = options.reduction == PixelKdReduction::kSkdCrossEntropy;
  const auto channels = static_cast<std::size_t>(student.c());
  std::vector<double> ln_s(channels);
  std::vector<double> ln_t(channels);
  double total = 0;
  for_pixels([&](std::int64_t n, std::int64_t h, std::int64_t w) {
    const bool counts = is_valid(n, h, w);
    log_softmax_pixel<T>(student, n, h, w, options.tau, ln_s);
    log_softmax_pixel<T>(teacher, n, h, w, options.tau, ln_t);
    for (std::size_t c = 0; c < channels; ++c) {
      const double p_t = std::exp(ln_t[c]);
      const double p_s = std::exp(ln_s[c]);
      if (counts && p_t > 0) total += p_t * ((cross_entropy ? 0.0 : ln_t[c]) - ln_s[c]);
      if (gstudent.defined()) {
        gstudent.at<T>(n, static_cast<std::int64_t>(c), h, w) =
            counts ? static_cast<T>(factor / options.tau * (p_s - p_t)) : T(0);
      }
    }
  });
  *loss.ptr<T>() = static_cast<T>(factor * total);
}

}  // namespace

void pixel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                  const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options) {
  LIMBECK_CHECK(student.dtype == teacher.dtype, "pixel_kd", "the reference takes one type, got {} and {}",
                limbeck::name_of(student.dtype), limbeck::name_of(teacher.dtype));
  visit_reference_dtype("pixel_kd", student.dtype,
                        [&](auto tag) { run<decltype(tag)>(student, teacher, labels, loss, gstudent, options); });
}

}  // namespace limbeck::distill
