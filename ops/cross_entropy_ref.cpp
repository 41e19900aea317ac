// Reference kernel of the cross entropy: the formula of ops/cross_entropy.h, pixel by pixel, any strides, f32 and f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cross_entropy_kernels.h"
#include "ops/map_view.h"

namespace limbeck::ops {
namespace {

template <class T>
void run(const TensorView& logits, const TensorView& labels, const TensorView& class_weights, const TensorView& loss,
         const TensorView& glogits, const CrossEntropyArgs& args) {
  const std::int64_t classes = logits.c();
  const auto weight = [&](std::int64_t k) {
    return class_weights.defined() ? static_cast<double>(class_weights.at<T>(k)) : 1.0;
  };
  const auto for_pixels = [&](const auto& body) {
    for (std::int64_t n = 0; n < logits.n(); ++n) {
      for (std::int64_t h = 0; h < logits.h(); ++h) {
        for (std::int64_t w = 0; w < logits.w(); ++w) body(n, h, w, label_at(labels, n, h, w));
      }
    }
  };

  double normaliser = 0;
  for_pixels([&](std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t y) {
    if (y == args.ignore_index) return;
    if (y < 0 || y >= classes) fail_label(n, h, w, y, classes, args.ignore_index);
    normaliser += weight(y);
  });
  const double scale = normaliser > 0 ? 1.0 / normaliser : 0.0;

  // target(k): how much of the pixel's loss is -ln p[k]
  const double even = args.label_smoothing / static_cast<double>(classes);
  const auto target = [&](std::int64_t k, std::int64_t y) {
    return weight(k) * ((k == y ? 1.0 - args.label_smoothing : 0.0) + even);
  };

  double total = 0;
  std::vector<double> log_p(static_cast<std::size_t>(classes));
  for_pixels([&](std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t y) {
    const bool valid = y != args.ignore_index;
    double largest = static_cast<double>(logits.at<T>(n, 0, h, w));
    for (std::int64_t k = 1; k < classes; ++k)
      largest = std::max(largest, static_cast<double>(logits.at<T>(n, k, h, w)));
    double sum = 0;
    for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(logits.at<T>(n, k, h, w)) - largest);
    double targets = 0;
    for (std::int64_t k = 0; k < classes; ++k) {
      const double value = static_cast<double>(logits.at<T>(n, k, h, w)) - largest - std::log(sum);
      log_p[static_cast<std::size_t>(k)] = value;
      const double t = valid ? target(k, y) : 0.0;
      targets += t;
      if (t > 0) total -= t * value;
    }
    if (!glogits.defined()) return;
    for (std::int64_t k = 0; k < classes; ++k) {
      const double p = std::exp(log_p[static_cast<std::size_t>(k)]);
      glogits.at<T>(n, k, h, w) = valid ? static_cast<T>(scale * (targets * p - target(k, y))) : T(0);
    }
  });
  *loss.ptr<T>() = static_cast<T>(total * scale);
}

}  // namespace

void cross_entropy_ref(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                       const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args) {
  visit_reference_dtype("cross_entropy", logits.dtype,
                        [&](auto tag) { run<decltype(tag)>(logits, labels, class_weights, loss, glogits, args); });
}

}  // namespace limbeck::ops
