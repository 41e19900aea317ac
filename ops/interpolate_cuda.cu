// Resizing on the GPU, channels-last, 16 bytes of channels per thread. The positions along both axes are computed once
// into small tables, exactly as on the CPU (integer arithmetic). Backward gathers: the outputs that read an input pixel
// are neighbours, and the tables say where they begin.
#include "core/cuda/kernel.cuh"
#include "core/cuda/vectors.cuh"
#include "ops/interpolate_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// One entry per output position.
struct Tap {
  int lower, upper;
  float weight;  // of upper
};

__global__ void taps_kernel(ResizeAxis axis, Tap* taps) {
  for (unsigned o = first(); o < axis.out; o += step()) {
    const auto s = axis.sample(o);
    taps[o] = {static_cast<int>(s.lower), static_cast<int>(s.upper), static_cast<float>(s.weight)};
  }
}

/// begin[i]: the first output whose lower neighbour is i or later, for i = 0 .. in. By bisection: `lower` never falls.
__global__ void begins_kernel(const Tap* taps, unsigned in, unsigned out, unsigned* begin) {
  for (unsigned i = first(); i <= in; i += step()) {
    unsigned low = 0;
    unsigned high = out;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if (taps[middle].lower < static_cast<int>(i)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    begin[i] = low;
  }
}

struct MapShape {
  unsigned height, width, channels;
  __device__ std::size_t at(unsigned image, unsigned h, unsigned w) const {
    return ((static_cast<std::size_t>(image) * height + h) * width + w) * channels;
  }
};

template <int V, class T>
__global__ void bilinear_kernel(MapShape in, MapShape out, const Tap* rows, const Tap* columns, const T* x, T* y,
                                unsigned items) {
  const unsigned vectors = out.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned ow = i / vectors % out.width;
    const unsigned oh = i / vectors / out.width % out.height;
    const unsigned image = i / vectors / out.width / out.height;
    const Tap r = rows[oh];
    const Tap q = columns[ow];
    float a[V];
    float b[V];
    float d[V];
    float e[V];
    load<V>(x + in.at(image, static_cast<unsigned>(r.lower), static_cast<unsigned>(q.lower)) + c, a);
    load<V>(x + in.at(image, static_cast<unsigned>(r.lower), static_cast<unsigned>(q.upper)) + c, b);
    load<V>(x + in.at(image, static_cast<unsigned>(r.upper), static_cast<unsigned>(q.lower)) + c, d);
    load<V>(x + in.at(image, static_cast<unsigned>(r.upper), static_cast<unsigned>(q.upper)) + c, e);
    for (int j = 0; j < V; ++j) {
      const float upper = (1 - q.weight) * a[j] + q.weight * b[j];
      const float lower = (1 - q.weight) * d[j] + q.weight * e[j];
      a[j] = (1 - r.weight) * upper + r.weight * lower;
    }
    store<V>(y + out.at(image, oh, ow) + c, a);
  }
}

/// V consecutive numbers of a row of the output, whatever pixels they belong to: for channels that are no multiple of V.
template <int V, class T>
__global__ void bilinear_row_kernel(MapShape in, MapShape out, const Tap* rows, const Tap* columns, const T* x, T* y,
                                    unsigned items) {
  const unsigned per_row = out.width * out.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned place = i % per_row * V;
    const unsigned row = i / per_row;
    const Tap r = rows[row % out.height];
    const T* above = x + in.at(row / out.height, static_cast<unsigned>(r.lower), 0);
    const T* below = x + in.at(row / out.height, static_cast<unsigned>(r.upper), 0);
    unsigned ow = place / out.channels;
    unsigned c = place % out.channels;
    Tap q = columns[ow];
    float value[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const unsigned left = static_cast<unsigned>(q.lower) * in.channels + c;
      const unsigned right = static_cast<unsigned>(q.upper) * in.channels + c;
      const float upper = (1 - q.weight) * to_float(above[left]) + q.weight * to_float(above[right]);
      const float lower = (1 - q.weight) * to_float(below[left]) + q.weight * to_float(below[right]);
      value[j] = (1 - r.weight) * upper + r.weight * lower;
      if (++c < out.channels) continue;
      c = 0;
      if (++ow < out.width) q = columns[ow];
    }
    store<V>(y + static_cast<std::size_t>(i) * V, value);
  }
}

/// How much of output `tap` came from input i.
__device__ inline float share(const Tap& tap, unsigned i) {
  const float of_lower = tap.lower == static_cast<int>(i) ? 1 - tap.weight : 0.0F;
  return tap.upper == static_cast<int>(i) ? of_lower + tap.weight : of_lower;
}

template <int V, class T>
__global__ void bilinear_backward_kernel(MapShape in, MapShape out, const Tap* rows, const Tap* columns,
                                         const unsigned* row_begin, const unsigned* column_begin, const T* gy, T* gx,
                                         unsigned items) {
  const unsigned vectors = in.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned w = i / vectors % in.width;
    const unsigned h = i / vectors / in.width % in.height;
    const unsigned image = i / vectors / in.width / in.height;
    float sum[V] = {};
    // Outputs with lower = h - 1 (h is their upper neighbour) or lower = h.
    for (unsigned oh = row_begin[h == 0 ? 0 : h - 1]; oh < row_begin[h + 1]; ++oh) {
      const float v = share(rows[oh], h);
      for (unsigned ow = column_begin[w == 0 ? 0 : w - 1]; ow < column_begin[w + 1]; ++ow) {
        const float weight = v * share(columns[ow], w);
        float g[V];
        load<V>(gy + out.at(image, oh, ow) + c, g);
        for (int j = 0; j < V; ++j) sum[j] += weight * g[j];
      }
    }
    store<V>(gx + in.at(image, h, w) + c, sum);
  }
}

/// E: an unsigned integer of the element's size; the values are only moved.
template <class E>
__global__ void nearest_kernel(MapShape in, MapShape out, const E* x, E* y, unsigned items) {
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % out.channels;
    const unsigned ow = i / out.channels % out.width;
    const unsigned oh = i / out.channels / out.width % out.height;
    const unsigned image = i / out.channels / out.width / out.height;
    const auto h = static_cast<unsigned>(nearest_source(oh, in.height, out.height));
    const auto w = static_cast<unsigned>(nearest_source(ow, in.width, out.width));
    y[i] = x[in.at(image, h, w) + c];
  }
}

template <int V, class T>
__global__ void nearest_backward_kernel(MapShape in, MapShape out, const T* gy, T* gx, unsigned items) {
  const unsigned vectors = in.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned w = i / vectors % in.width;
    const unsigned h = i / vectors / in.width % in.height;
    const unsigned image = i / vectors / in.width / in.height;
    float sum[V] = {};
    for (std::int64_t oh = nearest_first(h, in.height, out.height); oh < nearest_first(h + 1, in.height, out.height);
         ++oh) {
      for (std::int64_t ow = nearest_first(w, in.width, out.width); ow < nearest_first(w + 1, in.width, out.width);
           ++ow) {
        float g[V];
        load<V>(gy + out.at(image, static_cast<unsigned>(oh), static_cast<unsigned>(ow)) + c, g);
        for (int j = 0; j < V; ++j) sum[j] += g[j];
      }
    }
    store<V>(gx + in.at(image, h, w) + c, sum);
  }
}

MapShape shape_of(const TensorView& v) {
  LIMBECK_CHECK(v.numel() < (std::int64_t{1} << 32), "resize", "a map of shape {} has too many elements", v.shape);
  return {static_cast<unsigned>(v.h()), static_cast<unsigned>(v.w()), static_cast<unsigned>(v.c())};
}

/// The tables of both axes, on the device.
class Tables {
 public:
  Tables(const TensorView& in, const TensorView& out, bool align_corners)
      : memory_(static_cast<std::size_t>(out.h() + out.w()) * sizeof(Tap) +
                static_cast<std::size_t>(in.h() + in.w() + 2) * sizeof(unsigned)),
        rows(memory_.as<Tap>()),
        columns(rows + out.h()),
        row_begin(reinterpret_cast<unsigned*>(columns + out.w())),
        column_begin(row_begin + in.h() + 1) {
    launch(taps_kernel, grid_for(out.h()), kBlock, ResizeAxis{in.h(), out.h(), align_corners}, rows);
    launch(taps_kernel, grid_for(out.w()), kBlock, ResizeAxis{in.w(), out.w(), align_corners}, columns);
  }
  void find_begins(const TensorView& in, const TensorView& out) {
    launch(begins_kernel, grid_for(in.h() + 1), kBlock, rows, in.h(), out.h(), row_begin);
    launch(begins_kernel, grid_for(in.w() + 1), kBlock, columns, in.w(), out.w(), column_begin);
  }

 private:
  Scratch memory_;

 public:
  Tap* rows;
  Tap* columns;
  unsigned* row_begin;
  unsigned* column_begin;
};

}  // namespace

void resize_bilinear_cuda(const TensorView& x, bool align_corners, const TensorView& y) {
  const Tables tables(x, y, align_corners);
  visit_fast_dtype("resize_bilinear", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int kMost = kLanes<T>;
    const bool aligned = reinterpret_cast<std::uintptr_t>(y.data) % 16 == 0;
    if (x.c() % kMost != 0 && y.w() * y.c() % kMost == 0 && aligned) {
      const std::int64_t items = y.numel() / kMost;
      launch(bilinear_row_kernel<kMost, T>, grid_for(items), kBlock, shape_of(x), shape_of(y), tables.rows,
             tables.columns, x.ptr<const T>(), y.ptr<T>(), items);
      return;
    }
    visit_lanes<T>(
        x.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const auto items = static_cast<unsigned>(y.numel() / V);
          launch(bilinear_kernel<V, T>, grid_for(items), kBlock, shape_of(x), shape_of(y), tables.rows, tables.columns,
                 x.ptr<const T>(), y.ptr<T>(), items);
        },
        x.ptr<const T>(), y.ptr<const T>());
  });
}

void resize_bilinear_backward_cuda(const TensorView& gy, bool align_corners, const TensorView& gx) {
  Tables tables(gx, gy, align_corners);
  tables.find_begins(gx, gy);
  visit_vectors(
      "resize_bilinear", gy.dtype, gy.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const auto items = static_cast<unsigned>(gx.numel() / V);
        launch(bilinear_backward_kernel<V, T>, grid_for(items), kBlock, shape_of(gx), shape_of(gy), tables.rows,
               tables.columns, tables.row_begin, tables.column_begin, gy.ptr<const T>(), gx.ptr<T>(), items);
      },
      gy.data, gx.data);
}

void resize_nearest_cuda(const TensorView& x, const TensorView& y) {
  const auto run = [&](auto element) {
    using E = decltype(element);
    launch(nearest_kernel<E>, grid_for(y.numel()), kBlock, shape_of(x), shape_of(y), x.ptr<const E>(), y.ptr<E>(),
           y.numel());
  };
  switch (size_of(x.dtype)) {
    case 1: return run(std::uint8_t{});
    case 2: return run(std::uint16_t{});
    case 4: return run(std::uint32_t{});
    default: return run(std::uint64_t{});
  }
}

void resize_nearest_backward_cuda(const TensorView& gy, const TensorView& gx) {
  visit_vectors(
      "resize_nearest", gy.dtype, gy.c(),
      [&](auto tag, auto lanes) {
        using T = decltype(tag);
        constexpr int V = decltype(lanes)::value;
        const auto items = static_cast<unsigned>(gx.numel() / V);
        launch(nearest_backward_kernel<V, T>, grid_for(items), kBlock, shape_of(gx), shape_of(gy), gy.ptr<const T>(),
               gx.ptr<T>(), items);
      },
      gy.data, gx.data);
}

}  // namespace limbeck::ops
