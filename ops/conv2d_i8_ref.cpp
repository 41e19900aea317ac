// What this is: int8 convolution as plain loops in the order of the formula, dense, grouped and depthwise. The oracle of the fast kernels.
#include "ops/conv2d_i8_kernels.h"

namespace limbeck::ops {
namespace {

/// Sum of the products of result (n, o, p, q); what lies outside of the map is zero and adds nothing.
std::int32_t sum_of(const ConvI8& job, const std::int8_t* weights, std::int64_t n, std::int64_t o, std::int64_t p,
                    std::int64_t q) {
  const Conv2dOptions& options = job.options;
  const std::int64_t depth = job.w[1], kh = job.w[2], kw = job.w[3];
  const std::int64_t first_channel = o / (job.w[0] / options.groups) * depth;
  std::int32_t sum = 0;
  for (std::int64_t r = 0; r < kh; ++r) {
    const std::int64_t h = p * options.stride[0] - options.padding[0] + r * options.dilation[0];
    if (h < 0 || h >= job.x.h()) continue;
    for (std::int64_t s = 0; s < kw; ++s) {
      const std::int64_t v = q * options.stride[1] - options.padding[1] + s * options.dilation[1];
      if (v < 0 || v >= job.x.w()) continue;
      for (std::int64_t i = 0; i < depth; ++i) {
        const std::int32_t x = job.x.at<std::uint8_t>(n, first_channel + i, h, v) - job.x_zero;
        sum += x * weights[((o * kh + r) * kw + s) * depth + i];
      }
    }
  }
  return sum;
}

}  // namespace

void conv2d_i8_ref(const ConvI8& job, const std::int8_t* weights) {
  const TensorView& y = job.y;
  for (std::int64_t n = 0; n < y.n(); ++n) {
    for (std::int64_t o = 0; o < y.c(); ++o) {
      for (std::int64_t p = 0; p < y.h(); ++p) {
        for (std::int64_t q = 0; q < y.w(); ++q) {
          float t = job.result.value(sum_of(job, weights, n, o, p, q), o);
          if (job.residual.defined()) t = job.result.add_residual(t, job.residual.at<std::uint8_t>(n, o, p, q));
          if (y.dtype == DType::kU8) {
            job.result.store(t, y.at<std::uint8_t>(n, o, p, q));
          } else {
            job.result.store(t, y.at<float>(n, o, p, q));
          }
        }
      }
    }
  }
}

}  // namespace limbeck::ops
