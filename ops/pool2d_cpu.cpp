// What this is: fast pooling on the CPU, f32 and bf16, channels-last. A vector register holds neighbouring channels of
//   one pixel; the running maximum or sum of a window never leaves the registers.
//   The backward passes gather: each input pixel collects from the windows that cover it, so threads never write to the
//   same place and the order of additions is fixed.
// Read next: ops/pool2d_ref.cpp for the formulas, ops/simd.h.
#include <algorithm>
#include <bit>
#include <cstring>

#include "core/parallel.h"
#include "ops/pool2d_kernels.h"
#include "ops/simd.h"

namespace limbeck::ops {
namespace {

using simd::Bits;
using simd::kLanes;
using simd::Vec;

/// Elements below which another thread does not pay.
constexpr std::int64_t kGrain = 16384;

/// Element offset of pixel (n, h, w) in a dense channels-last map.
std::int64_t pixel(const TensorView& v, std::int64_t n, std::int64_t h, std::int64_t w) {
  return ((n * v.h() + h) * v.w() + w) * v.c();
}

/// Calls body(n, h) for every image row of `v`, in parallel; `work` is the cost of one element in elements.
template <class Body>
void for_each_row(const TensorView& v, std::int64_t work, const Body& body) {
  const std::int64_t row_cost = std::max<std::int64_t>(v.w() * v.c() * work, 1);
  parallel_for(v.n() * v.h(), kGrain / row_cost + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i / v.h(), i % v.h());
  });
}

/// The first min(count, kLanes) elements.
template <class T>
Vec load_lanes(const T* p, std::int64_t count) {
  return count >= kLanes ? simd::load(p) : simd::load_some(p, count);
}
template <class T>
void store_lanes(T* p, Vec v, std::int64_t count) {
  if (count >= kLanes) {
    simd::store(p, v);
  } else {
    simd::store_some(p, v, count);
  }
}

/// memcpy of min(count, kLanes) elements; the usual full vector is one move instead of a call.
template <class T>
void copy_lanes(const T* from, T* to, std::int64_t count) {
  if (count >= kLanes) {
    std::memcpy(to, from, kLanes * sizeof(T));
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  }
}
// The loops over kLanes become one widening or narrowing move; g++ 12 takes __builtin_convertvector apart lane by lane.
Bits load_places(const std::uint8_t* p, std::int64_t count) {
  std::uint8_t bytes[kLanes] = {};
  copy_lanes(p, bytes, count);
  std::uint32_t places[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) places[i] = bytes[i];
  return std::bit_cast<Bits>(places);
}
Bits load_places(const std::int32_t* p, std::int64_t count) {
  std::int32_t buffer[kLanes] = {};
  copy_lanes(p, buffer, count);
  return std::bit_cast<Bits>(buffer);
}
void store_places(std::uint8_t* p, Bits vector, std::int64_t count) {
  std::uint32_t places[kLanes];
  std::memcpy(places, &vector, sizeof vector);
  std::uint8_t bytes[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) bytes[i] = static_cast<std::uint8_t>(places[i]);
  copy_lanes(bytes, p, count);
}
void store_places(std::int32_t* p, Bits places, std::int64_t count) {
  copy_lanes(reinterpret_cast<const std::int32_t*>(&places), p, count);
}

template <bool kPlaces, class T, class Index>
void max_pool(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y, Index* indices) {
  const std::int64_t channels = x.c();
  for_each_row(y, rows.kernel * columns.kernel, [&](std::int64_t n, std::int64_t oh) {
    const std::int64_t top = rows.begin(oh);
    const std::int64_t bottom = rows.end(oh);
    for (std::int64_t ow = 0; ow < y.w(); ++ow) {
      const std::int64_t left = columns.begin(ow);
      const std::int64_t right = columns.end(ow);
      const auto place_of = [&](std::int64_t h, std::int64_t w) {
        return static_cast<std::uint32_t>((h - rows.origin(oh)) * columns.kernel + (w - columns.origin(ow)));
      };
      const T* window = x.ptr<T>() + pixel(x, n, top, left);
      const std::int64_t out = pixel(y, n, oh, ow);
      for (std::int64_t c = 0; c < channels; c += kLanes) {
        const std::int64_t count = channels - c;
        Vec best = load_lanes(window + c, count);
        Bits place = Bits{} + place_of(top, left);
        for (std::int64_t h = top; h < bottom; ++h) {
          const T* in = window + (h - top) * x.w() * channels + c;
          for (std::int64_t w = left; w < right; ++w, in += channels) {
            const Vec value = load_lanes(in, count);
            const auto wins = (value > best) | (value != value);  // NaN wins over anything
            best = wins ? value : best;
            if constexpr (kPlaces) place = wins ? Bits{} + place_of(h, w) : place;
          }
        }
        store_lanes(y.ptr<T>() + out + c, best, count);
        if constexpr (kPlaces) store_places(indices + out + c, place, count);
      }
    }
  });
}

template <class T, class Index>
void max_pool_backward(const TensorView& gy, const Index* indices, const PoolAxis& rows, const PoolAxis& columns,
                       const TensorView& gx) {
  const std::int64_t channels = gx.c();
  const std::int64_t overlap = (rows.kernel * columns.kernel) / (rows.stride * columns.stride) + 1;
  for_each_row(gx, overlap, [&](std::int64_t n, std::int64_t h) {
    const std::int64_t first_row = rows.first_cover(h);
    const std::int64_t last_row = rows.last_cover(h);
    for (std::int64_t w = 0; w < gx.w(); ++w) {
      const std::int64_t first_column = columns.first_cover(w);
      const std::int64_t last_column = columns.last_cover(w);
      T* out = gx.ptr<T>() + pixel(gx, n, h, w);
      for (std::int64_t c = 0; c < channels; c += kLanes) {
        const std::int64_t count = channels - c;
        Vec sum{};
        for (std::int64_t oh = first_row; oh <= last_row; ++oh) {
          for (std::int64_t ow = first_column; ow <= last_column; ++ow) {
            const auto here =
                static_cast<std::uint32_t>((h - rows.origin(oh)) * columns.kernel + w - columns.origin(ow));
            const std::int64_t from = pixel(gy, n, oh, ow) + c;
            const Vec g = load_lanes(gy.ptr<T>() + from, count);
            sum += load_places(indices + from, count) == here ? g : Vec{};
          }
        }
        store_lanes(out + c, sum, count);
      }
    }
  });
}

/// Vectors of channels that are averaged together.
constexpr std::int64_t kGroup = 4;

/// A window in memory: `in` points to its first pixel.
struct Window {
  std::int64_t height, width, map_width, channels;
  float weight;
};

/// Averages kVectors vectors of channels; `count` channels are real.
template <std::int64_t kVectors, class T>
void average_window(const T* in, const Window& window, std::int64_t count, T* out) {
  Vec sum[kVectors] = {};
  for (std::int64_t h = 0; h < window.height; ++h) {
    // Rows are summed on their own first: long chains of float additions lose digits.
    Vec row[kVectors] = {};
    const T* p = in + h * window.map_width * window.channels;
    for (std::int64_t w = 0; w < window.width; ++w, p += window.channels) {
      for (std::int64_t v = 0; v < kVectors; ++v) row[v] += load_lanes(p + v * kLanes, count - v * kLanes);
    }
    for (std::int64_t v = 0; v < kVectors; ++v) sum[v] += row[v];
  }
  for (std::int64_t v = 0; v < kVectors; ++v) store_lanes(out + v * kLanes, window.weight * sum[v], count - v * kLanes);
}

/// Calls f with the element type of the indices.
template <class F>
void visit_index(const TensorView& indices, F&& f) {
  if (indices.dtype == DType::kU8) {
    f(indices.ptr<std::uint8_t>());
  } else {
    f(indices.ptr<std::int32_t>());
  }
}

}  // namespace

void max_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                  const TensorView& indices) {
  visit_fast_dtype("max_pool2d", x.dtype, [&]<class T>(T) {
    if (indices.defined()) {
      visit_index(indices, [&](auto* places) { max_pool<true, T>(x, rows, columns, y, places); });
    } else {
      max_pool<false, T, std::uint8_t>(x, rows, columns, y, nullptr);
    }
  });
}

void max_pool_backward_cpu(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                           const PoolAxis& columns, const TensorView& gx) {
  visit_fast_dtype("max_pool2d", gy.dtype, [&]<class T>(T) {
    visit_index(indices, [&](const auto* places) { max_pool_backward<T>(gy, places, rows, columns, gx); });
  });
}

void avg_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y) {
  // One task is a few vectors of channels of one output pixel: even a global pool of one image keeps all threads busy.
  const std::int64_t channels = x.c();
  const std::int64_t groups = (channels + kGroup * kLanes - 1) / (kGroup * kLanes);
  const std::int64_t tasks = y.n() * y.h() * y.w() * groups;
  const std::int64_t task_cost = std::max<std::int64_t>(x.numel() / tasks, 1);
  visit_fast_dtype("avg_pool2d", x.dtype, [&]<class T>(T) {
    parallel_for(tasks, kGrain / task_cost + 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t c = task % groups * kGroup * kLanes;
        const std::int64_t ow = task / groups % y.w();
        const std::int64_t oh = task / groups / y.w() % y.h();
        const std::int64_t n = task / groups / y.w() / y.h();
        const T* in = x.ptr<T>() + pixel(x, n, rows.begin(oh), columns.begin(ow));
        T* out = y.ptr<T>() + pixel(y, n, oh, ow);
        const Window window{rows.end(oh) - rows.begin(oh), columns.end(ow) - columns.begin(ow), x.w(), channels,
                            1.0F / static_cast<float>(rows.divisor(oh) * columns.divisor(ow))};
        if (c + kGroup * kLanes <= channels) {
          average_window<kGroup>(in + c, window, kGroup * kLanes, out + c);
          continue;
        }
        for (std::int64_t k = c; k < channels; k += kLanes) average_window<1>(in + k, window, channels - k, out + k);
      }
    });
  });
}

void avg_pool_backward_cpu(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx) {
  const std::int64_t channels = gx.c();
  visit_fast_dtype("avg_pool2d", gy.dtype, [&]<class T>(T) {
    for_each_row(gx, 1, [&](std::int64_t n, std::int64_t h) {
      const std::int64_t first_row = rows.first_cover(h);
      const std::int64_t last_row = rows.last_cover(h);
      for (std::int64_t w = 0; w < gx.w(); ++w) {
        const std::int64_t first_column = columns.first_cover(w);
        const std::int64_t last_column = columns.last_cover(w);
        T* out = gx.ptr<T>() + pixel(gx, n, h, w);
        if (w > 0 && first_column == columns.first_cover(w - 1) && last_column == columns.last_cover(w - 1)) {
          std::copy_n(out - channels, channels, out);  // covered by the same windows as the pixel before
          continue;
        }
        for (std::int64_t c = 0; c < channels; c += kLanes) {
          const std::int64_t count = channels - c;
          Vec sum{};
          for (std::int64_t oh = first_row; oh <= last_row; ++oh) {
            for (std::int64_t ow = first_column; ow <= last_column; ++ow) {
              const float weight = 1.0F / static_cast<float>(rows.divisor(oh) * columns.divisor(ow));
              sum += weight * load_lanes(gy.ptr<T>() + pixel(gy, n, oh, ow) + c, count);
            }
          }
          store_lanes(out + c, sum, count);
        }
      }
    });
  });
}

}  // namespace limbeck::ops
