// What this is: see ops/byte_maps.h.
#include "ops/byte_maps.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "ops/interpolate_kernels.h"
#include "ops/quantise.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // bytes below which another thread does not pay

Tensor checked(const char* where, const Tensor& x) {
  LIMBECK_CHECK(x.defined() && x.ndim() == 4 && x.dtype() == DType::kU8 && x.device().is_cpu(), where,
                "got {}, expected u8 [N,C,H,W] on the CPU", x.defined() ? x.describe() : "nothing");
  return x.dense();
}

/// Calls row(n, h) for every row of `y` on all threads.
template <class Row>
void each_row(const Tensor& y, const Row& row) {
  const std::int64_t bytes = std::max<std::int64_t>(1, y.size(3) * y.size(1));
  parallel_for(y.size(0) * y.size(2), std::max<std::int64_t>(1, kGrain / bytes), [&](auto begin, auto end) {
    for (std::int64_t r = begin; r < end; ++r) row(r / y.size(2), r % y.size(2));
  });
}

}  // namespace

Tensor max_pool2d_bytes(const Tensor& x_any, const Pool2dOptions& o) {
  constexpr const char* kName = "max_pool2d_bytes";
  const Tensor x = checked(kName, x_any);
  std::array<std::int64_t, 2> stride{}, size{};
  for (std::size_t d = 0; d < 2; ++d) {
    stride[d] = o.stride[d] > 0 ? o.stride[d] : o.kernel[d];
    const std::int64_t in = x.size(static_cast<std::int64_t>(d) + 2);
    LIMBECK_CHECK(o.kernel[d] > 0 && 2 * o.padding[d] <= o.kernel[d] && in + 2 * o.padding[d] >= o.kernel[d], kName,
                  "a window of {} with padding {} does not fit {}", o.kernel[d], o.padding[d], in);
    size[d] = pooled_size(in, o.kernel[d], stride[d], o.padding[d], o.ceil_mode);
  }
  const std::int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  const Tensor y = Tensor::empty({x.size(0), channels, size[0], size[1]}, DType::kU8);
  each_row(y, [&](std::int64_t n, std::int64_t i) {
    const std::int64_t top = i * stride[0] - o.padding[0];
    for (std::int64_t j = 0; j < size[1]; ++j) {
      const std::int64_t left = j * stride[1] - o.padding[1];
      std::uint8_t* to = y.data<std::uint8_t>() + ((n * size[0] + i) * size[1] + j) * channels;
      std::fill_n(to, channels, std::uint8_t{0});
      for (std::int64_t h = std::max<std::int64_t>(top, 0); h < std::min(top + o.kernel[0], height); ++h) {
        for (std::int64_t w = std::max<std::int64_t>(left, 0); w < std::min(left + o.kernel[1], width); ++w) {
          const std::uint8_t* from = x.data<std::uint8_t>() + ((n * height + h) * width + w) * channels;
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) to[c] = std::max(to[c], from[c]);
        }
      }
    }
  });
  return y;
}

Tensor resize_bilinear_bytes(const Tensor& x_any, std::array<std::int64_t, 2> size, bool align_corners) {
  constexpr const char* kName = "resize_bilinear_bytes";
  const Tensor x = checked(kName, x_any);
  LIMBECK_CHECK(size[0] > 0 && size[1] > 0, kName, "got the size {}x{}", size[0], size[1]);
  const std::int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  if (size[0] == height && size[1] == width) return x;
  const Tensor y = Tensor::empty({x.size(0), channels, size[0], size[1]}, DType::kU8);
  const ResizeAxis rows{height, size[0], align_corners}, columns{width, size[1], align_corners};
  each_row(y, [&](std::int64_t n, std::int64_t i) {
    const ResizeAxis::Sample v = rows.sample(i);
    const std::uint8_t* upper = x.data<std::uint8_t>() + (n * height + v.lower) * width * channels;
    const std::uint8_t* lower = x.data<std::uint8_t>() + (n * height + v.upper) * width * channels;
    const auto down = static_cast<float>(v.weight);
    for (std::int64_t j = 0; j < size[1]; ++j) {
      const ResizeAxis::Sample u = columns.sample(j);
      const auto right = static_cast<float>(u.weight);
      const std::uint8_t *a = upper + u.lower * channels, *b = upper + u.upper * channels;
      const std::uint8_t *c = lower + u.lower * channels, *d = lower + u.upper * channels;
      std::uint8_t* to = y.data<std::uint8_t>() + ((n * size[0] + i) * size[1] + j) * channels;
#pragma omp simd
      for (std::int64_t k = 0; k < channels; ++k) {
        const auto top = static_cast<float>(a[k]), bottom = static_cast<float>(c[k]);
        const float above = top + right * (static_cast<float>(b[k]) - top);
        const float below = bottom + right * (static_cast<float>(d[k]) - bottom);
        to[k] = static_cast<std::uint8_t>(round_to_even(above + down * (below - above)));
      }
    }
  });
  return y;
}

}  // namespace limbeck::ops
