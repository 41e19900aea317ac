// Resizing on the GPU, channels-last, 16 bytes of channels per thread. The positions along both axes are computed once
// into small tables, exactly as on the CPU (integer arithmetic). Backward gathers: the outputs that read an input pixel
// are neighbours, and the tables say where they begin.
//
// Note [classes]
//   Logits have 19 channels or 11, and are enlarged 16 times: no pixel begins at a multiple of 16 bytes, and a thousand outputs read an
//   input. A row of the map does begin there. Forward, a thread therefore makes 16 bytes of a row, whatever pixels they belong to, in
//   several rows below each other, and interpolates along the input's rows once for all outputs between the same two. Backward goes
//   along one axis at a time: the rows of gy that read an input row are added up, 16 bytes per thread, then the columns of the sums.
#include <algorithm>

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

/// Where the tables lie; `row_begin[h]`: the first output whose lower neighbour is row h or later, for h = 0 .. in.
struct TablePointers {
  Tap* rows;
  Tap* columns;
  unsigned* row_begin;  // null: not wanted
  unsigned* column_begin;
};

__device__ inline Tap tap_of(const ResizeAxis& axis, unsigned o) {
  const auto s = axis.sample(o);
  return {static_cast<int>(s.lower), static_cast<int>(s.upper), static_cast<float>(s.weight)};
}

/// By bisection: `lower` never falls.
__device__ inline unsigned begin_of(const ResizeAxis& axis, unsigned i) {
  auto low = static_cast<unsigned>(0);
  auto high = static_cast<unsigned>(axis.out);
  while (low < high) {
    const unsigned middle = (low + high) / 2;
    if (axis.sample(middle).lower < i) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// All tables in one launch: blocks with blockIdx.y = 0 make those of the rows, the others those of the columns.
__global__ void tables_kernel(ResizeAxis rows, ResizeAxis columns, TablePointers to) {
  const bool first_axis = blockIdx.y == 0;
  const ResizeAxis axis = first_axis ? rows : columns;
  Tap* taps = first_axis ? to.rows : to.columns;
  unsigned* begins = first_axis ? to.row_begin : to.column_begin;
  const auto out = static_cast<unsigned>(axis.out);
  const unsigned count = out + (begins == nullptr ? 0 : static_cast<unsigned>(axis.in) + 1);
  for (unsigned i = first(); i < count; i += step()) {
    if (i < out) {
      taps[i] = tap_of(axis, i);
    } else {
      begins[i - out] = begin_of(axis, i - out);
    }
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

/// V consecutive numbers, from `place` on, of two rows of the input interpolated along them.
template <int V, class T>
__device__ inline void along_rows(const T* above, const T* below, const Tap* columns, unsigned place, unsigned channels,
                                  unsigned out_width, float (&upper)[V], float (&lower)[V]) {
  unsigned ow = place / channels;
  unsigned c = place % channels;
  Tap q = columns[ow];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const unsigned left = static_cast<unsigned>(q.lower) * channels + c;
    const unsigned right = static_cast<unsigned>(q.upper) * channels + c;
    upper[j] = (1 - q.weight) * to_float(above[left]) + q.weight * to_float(above[right]);
    lower[j] = (1 - q.weight) * to_float(below[left]) + q.weight * to_float(below[right]);
    if (++c < channels) continue;
    c = 0;
    if (++ow < out_width) q = columns[ow];
  }
}

/// For channels that are no multiple of V; `each`: rows of a thread. See Note [classes].
template <int V, class T>
__global__ void bilinear_row_kernel(MapShape in, MapShape out, const Tap* rows, const Tap* columns, const T* x, T* y,
                                    unsigned each, unsigned items) {
  const unsigned per_row = out.width * out.channels / V;
  const unsigned strips = (out.height + each - 1) / each;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned place = i % per_row * V;
    const unsigned image = i / per_row / strips;
    const unsigned begin = i / per_row % strips * each;
    const unsigned end = begin + each < out.height ? begin + each : out.height;
    float upper[V];
    float lower[V];
    int between = -1;  // the input row above those that `upper` and `lower` were made for
    for (unsigned oh = begin; oh < end; ++oh) {
      const Tap r = rows[oh];
      if (r.lower != between) {
        between = r.lower;
        along_rows<V>(x + in.at(image, static_cast<unsigned>(r.lower), 0),
                      x + in.at(image, static_cast<unsigned>(r.upper), 0), columns, place, in.channels, out.width,
                      upper, lower);
      }
      float value[V];
      for (int j = 0; j < V; ++j) value[j] = (1 - r.weight) * upper[j] + r.weight * lower[j];
      store<V>(y + out.at(image, oh, 0) + place, value);
    }
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

/// sums [image][row of gx][numbers of a row of gy] = the rows of gy that read this row, by how much they did; V numbers per thread.
template <int V, class T>
__global__ void gather_rows_kernel(unsigned in_height, MapShape out, const Tap* rows, const unsigned* row_begin,
                                   const T* gy, float* sums, unsigned items) {
  const unsigned length = out.width * out.channels;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned place = i % (length / V) * V;
    const unsigned h = i / (length / V) % in_height;
    const T* from = gy + out.at(i / (length / V) / in_height, 0, 0) + place;
    const unsigned end = row_begin[h + 1];
    float sum[V] = {};
#pragma unroll 4
    for (unsigned oh = row_begin[h == 0 ? 0 : h - 1]; oh < end; ++oh) {
      const float weight = share(rows[oh], h);
      float g[V];
      load<V>(from + static_cast<std::size_t>(oh) * length, g);
      for (int j = 0; j < V; ++j) sum[j] += weight * g[j];
    }
    store<V>(sums + static_cast<std::size_t>(i) * V, sum);
  }
}

/// gx = the columns of `sums` that read a pixel, by how much they did.
template <int V, class T>
__global__ void gather_columns_kernel(MapShape in, unsigned out_width, const Tap* columns, const unsigned* column_begin,
                                      const float* sums, T* gx, unsigned items) {
  const unsigned vectors = in.channels / V;
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % vectors * V;
    const unsigned w = i / vectors % in.width;
    const float* from = sums + static_cast<std::size_t>(i / vectors / in.width) * out_width * in.channels + c;
    const unsigned end = column_begin[w + 1];
    float sum[V] = {};
#pragma unroll 4
    for (unsigned ow = column_begin[w == 0 ? 0 : w - 1]; ow < end; ++ow) {
      const float weight = share(columns[ow], w);
      float g[V];
      load<V>(from + static_cast<std::size_t>(ow) * in.channels, g);
      for (int j = 0; j < V; ++j) sum[j] += weight * g[j];
    }
    store<V>(gx + static_cast<std::size_t>(i) * V, sum);
  }
}

/// E: an unsigned integer of the element's size, or 16 bytes; the values are only moved.
template <class E>
__global__ void nearest_kernel(MapShape in, MapShape out, const E* x, E* y, unsigned items) {
  for (unsigned i = first(); i < items; i += step()) {
    const unsigned c = i % out.channels;
    const unsigned ow = i / out.channels % out.width;
    const unsigned oh = i / out.channels / out.width % out.height;
    const unsigned image = i / out.channels / out.width / out.height;
    const unsigned h = nearest_source(oh, in.height, out.height);
    const unsigned w = nearest_source(ow, in.width, out.width);
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
    const unsigned row_end = nearest_first(h + 1, in.height, out.height);
    const unsigned column_begin = nearest_first(w, in.width, out.width);
    const unsigned column_end = nearest_first(w + 1, in.width, out.width);
    float sum[V] = {};
    for (unsigned oh = nearest_first(h, in.height, out.height); oh < row_end; ++oh) {
      for (unsigned ow = column_begin; ow < column_end; ++ow) {
        float g[V];
        load<V>(gy + out.at(image, oh, ow) + c, g);
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

/// The nearest kernels multiply positions of both maps in 32 bits.
void check_sides(const TensorView& a, const TensorView& b) {
  constexpr std::int64_t kMost = 32768;
  LIMBECK_CHECK(std::max({a.h(), a.w(), b.h(), b.w()}) <= kMost, "resize_nearest",
                "maps of shapes {} and {}, expected at most {} rows and columns", a.shape, b.shape, kMost);
}

/// The tables of both axes, on the device.
class Tables : public TablePointers {
 public:
  /// `begins`: also those of the gradient.
  Tables(const TensorView& in, const TensorView& out, bool align_corners, bool begins)
      : memory_(static_cast<std::size_t>(out.h() + out.w()) * sizeof(Tap) +
                static_cast<std::size_t>(in.h() + in.w() + 2) * sizeof(unsigned)) {
    rows = memory_.as<Tap>();
    columns = rows + out.h();
    row_begin = begins ? reinterpret_cast<unsigned*>(columns + out.w()) : nullptr;
    column_begin = begins ? row_begin + in.h() + 1 : nullptr;
    const std::int64_t most = std::max(out.h() + in.h(), out.w() + in.w()) + 1;
    launch(tables_kernel, dim3(grid_for(most), 2), kBlock, ResizeAxis{in.h(), out.h(), align_corners},
           ResizeAxis{in.w(), out.w(), align_corners}, static_cast<const TablePointers&>(*this));
  }

 private:
  Scratch memory_;
};

/// Along one axis at a time; see Note [classes].
template <class T>
void gather_by_axes(const Tables& tables, const TensorView& gy, const TensorView& gx) {
  constexpr int kMost = kLanes<T>;
  const std::int64_t length = gy.w() * gy.c();
  const Scratch sums(static_cast<std::size_t>(gx.n() * gx.h() * length) * sizeof(float));
  const std::int64_t items = gx.n() * gx.h() * length / kMost;
  LIMBECK_CHECK(items < (std::int64_t{1} << 32), "resize", "maps of shapes {} and {} have too many elements", gy.shape,
                gx.shape);
  launch(gather_rows_kernel<kMost, T>, grid_for(items), kBlock, gx.h(), shape_of(gy), tables.rows, tables.row_begin,
         gy.ptr<const T>(), sums.as<float>(), items);
  visit_lanes<T>(
      gx.c(),
      [&](auto lanes) {
        constexpr int V = decltype(lanes)::value;
        const std::int64_t vectors = gx.numel() / V;
        launch(gather_columns_kernel<V, T>, grid_for(vectors), kBlock, shape_of(gx), gy.w(), tables.columns,
               tables.column_begin, sums.as<const float>(), gx.ptr<T>(), vectors);
      },
      gx.ptr<const T>());
}

}  // namespace

void resize_bilinear_cuda(const TensorView& x, bool align_corners, const TensorView& y) {
  const Tables tables(x, y, align_corners, false);
  visit_fast_dtype("resize_bilinear", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int kMost = kLanes<T>;
    if (x.c() % kMost != 0 && y.w() * y.c() % kMost == 0 && aligned(y.data)) {
      constexpr std::int64_t kMostRows = 8;
      const std::int64_t vectors = y.numel() / kMost;
      const std::int64_t enough = std::int64_t{1024} * properties().multiProcessorCount;  // threads
      const std::int64_t each = std::clamp<std::int64_t>(vectors / enough, 1, kMostRows);
      const std::int64_t items = vectors / y.h() * ceil_div(y.h(), each);
      launch(bilinear_row_kernel<kMost, T>, grid_for(items), kBlock, shape_of(x), shape_of(y), tables.rows,
             tables.columns, x.ptr<const T>(), y.ptr<T>(), each, items);
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
  constexpr std::int64_t kMuch = 4;  // enlargement from which on one axis at a time reads less
  const Tables tables(gx, gy, align_corners, true);
  visit_fast_dtype("resize_bilinear", gy.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int kMost = kLanes<T>;
    const bool rows_of_vectors = gy.w() * gy.c() % kMost == 0 && aligned(gy.data);
    if (rows_of_vectors && (gy.c() % kMost != 0 || gy.h() >= kMuch * gx.h())) return gather_by_axes<T>(tables, gy, gx);
    visit_lanes<T>(
        gy.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const auto items = static_cast<unsigned>(gx.numel() / V);
          launch(bilinear_backward_kernel<V, T>, grid_for(items), kBlock, shape_of(gx), shape_of(gy), tables.rows,
                 tables.columns, tables.row_begin, tables.column_begin, gy.ptr<const T>(), gx.ptr<T>(), items);
        },
        gy.ptr<const T>(), gx.ptr<const T>());
  });
}

void resize_nearest_cuda(const TensorView& x, const TensorView& y) {
  check_sides(x, y);
  const auto run = [&](auto element, std::int64_t elements) {  // `elements` of them make a pixel
    using E = decltype(element);
    MapShape in = shape_of(x);
    MapShape out = shape_of(y);
    in.channels = out.channels = static_cast<unsigned>(elements);
    const std::int64_t items = y.numel() / y.c() * elements;
    launch(nearest_kernel<E>, grid_for(items), kBlock, in, out, x.ptr<const E>(), y.ptr<E>(), items);
  };
  const auto size = static_cast<std::int64_t>(size_of(x.dtype));
  if (x.c() * size % 16 == 0 && aligned(x.data) && aligned(y.data)) return run(uint4{}, x.c() * size / 16);
  switch (size) {
    case 1: return run(std::uint8_t{}, x.c());
    case 2: return run(std::uint16_t{}, x.c());
    case 4: return run(std::uint32_t{}, x.c());
    default: return run(std::uint64_t{}, x.c());
  }
}

void resize_nearest_backward_cuda(const TensorView& gy, const TensorView& gx) {
  check_sides(gy, gx);
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
