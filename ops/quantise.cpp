// What this is: see ops/quantise.h. Both loops are vectorised and compute each number by itself, so that they are their own reference.
#include "ops/quantise.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kGrain = 1 << 15;

template <class T>
void quantise_some(const T* from, std::uint8_t* to, std::int64_t count, Quantisation q) {
  const float steps = 1.0F / q.scale;
  const auto low = static_cast<float>(-q.zero), high = static_cast<float>(255 - q.zero);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = static_cast<float>(from[i]) * steps;
    const float above = v > low ? v : low;  // in this order, for NaN
    to[i] = static_cast<std::uint8_t>(round_to_even(above < high ? above : high) + q.zero);
  }
}

void dequantise_some(const std::uint8_t* from, float* to, std::int64_t count, Quantisation q) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = q.scale * static_cast<float>(static_cast<std::int32_t>(from[i]) - q.zero);
}

}  // namespace

Quantisation quantisation_of(double low, double high) {
  LIMBECK_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high, "quantise",
                "got the range {} to {}, expected two finite numbers in order", low, high);
  low = std::min(low, 0.0);
  high = std::max(high, 0.0);
  const auto scale = static_cast<float>((high - low) / 255);
  if (!(scale > 0)) return {};  // nothing but zero
  const auto zero = static_cast<std::int32_t>(std::lrint(-low / static_cast<double>(scale)));
  return {scale, std::clamp(zero, 0, 255)};
}

void check_quantisation(const char* where, const Quantisation& q) {
  LIMBECK_CHECK(std::isfinite(q.scale) && q.scale > 0 && q.zero >= 0 && q.zero <= 255, where,
                "got scale {} and zero {}, expected a finite scale above 0 and a zero in 0..255", q.scale, q.zero);
}

Tensor quantise(const Tensor& x_any, const Quantisation& q) {
  check_quantisation("quantise", q);
  LIMBECK_CHECK(x_any.defined() && x_any.device().is_cpu(), "quantise", "got {}, expected a tensor on the CPU",
                x_any.defined() ? x_any.describe() : "nothing");
  const Tensor x = x_any.dense();
  const Tensor y = Tensor::empty(x.shape(), DType::kU8);
  visit_fast_dtype("quantise", x.dtype(), [&](auto type) {
    const auto* from = x.data<decltype(type)>();
    auto* to = y.data<std::uint8_t>();
    parallel_for(x.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      quantise_some(from + begin, to + begin, end - begin, q);
    });
  });
  return y;
}

Tensor dequantise(const Tensor& x_any, const Quantisation& q) {
  check_quantisation("dequantise", q);
  LIMBECK_CHECK(x_any.defined() && x_any.device().is_cpu() && x_any.dtype() == DType::kU8, "dequantise",
                "got {}, expected u8 on the CPU", x_any.defined() ? x_any.describe() : "nothing");
  const Tensor x = x_any.dense();
  const Tensor y = Tensor::empty(x.shape());
  const auto* from = x.data<std::uint8_t>();
  auto* to = y.data<float>();
  parallel_for(x.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    dequantise_some(from + begin, to + begin, end - begin, q);
  });
  return y;
}

}  // namespace limbeck::ops
