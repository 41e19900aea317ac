// What this is: fast resize on the CPU, channels-last, f32 and bf16 (nearest: any type). Both bilinear directions are
//   separable, and both do the work that grows with the large map along whole rows, where the number of channels does
//   not matter.
// Read next: ops/interpolate_ref.cpp for the formulas.
//
// Note [bilinear forward]
//   An input row is stretched to the output width once and kept; an output row is then a blend of two stretched rows.
//   Going from 16 to 256 rows, 15 of 16 output rows cost one pass over two rows in the cache.
// Note [bilinear backward]
//   Output rows whose lower neighbour is input row i form segment i (ResizeAxis::sample grows with o). Segment i gives
//   (1 - weight) gy to row i and weight gy to row i+1, so one pass over gy in order fills two accumulators; the second
//   one is carried over to the next input row. Then the accumulated row is narrowed to the input width. Every input row
//   has one owner, the order of additions is fixed, and there are no atomics.
// Note [whole vectors]
//   A pixel of 11 or 21 channels is handled as whole vectors of 16. What is written beyond the pixel is overwritten by
//   the next pixel; the row buffers are kVector longer for the last one.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/interpolate_kernels.h"
#include "ops/row_store.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kVector = 16;
/// Elements of a row handled at once, so that the accumulators stay in the first-level cache.
constexpr std::int64_t kChunk = 1024;
/// Elements below which another thread does not pay.
constexpr std::int64_t kGrain = 16384;

std::int64_t whole_vectors(std::int64_t n) { return (n + kVector - 1) / kVector * kVector; }

/// Floats from the caching allocator.
class FloatBuffer {
 public:
  explicit FloatBuffer(std::int64_t count) : memory_(static_cast<std::size_t>(count) * sizeof(float)) {}
  [[nodiscard]] float* data() const { return memory_.as<float>(); }

 private:
  Workspace memory_;
};

/// ResizeAxis::sample for every output position, and the segments of Note [bilinear backward].
class AxisTable {
 public:
  explicit AxisTable(const ResizeAxis& axis)
      : in_(axis.in),
        lower_(static_cast<std::size_t>(axis.out + axis.in + 1) * sizeof(std::int64_t)),
        weight_(axis.out) {
    std::int64_t* first = lower_.as<std::int64_t>() + axis.out;
    std::int64_t segment = 0;
    first[0] = 0;
    for (std::int64_t o = 0; o < axis.out; ++o) {
      const auto sample = axis.sample(o);
      lower_.as<std::int64_t>()[o] = sample.lower;
      weight_.data()[o] = static_cast<float>(sample.weight);
      while (segment < sample.lower) first[++segment] = o;
    }
    while (segment < axis.in) first[++segment] = axis.out;
    first_ = first;
  }
  [[nodiscard]] std::int64_t lower(std::int64_t o) const { return lower_.as<std::int64_t>()[o]; }
  [[nodiscard]] std::int64_t upper(std::int64_t o) const { return std::min(lower(o) + 1, in_ - 1); }
  [[nodiscard]] float weight(std::int64_t o) const { return weight_.data()[o]; }
  /// Segment i is first(i) <= o < first(i+1).
  [[nodiscard]] std::int64_t first(std::int64_t i) const { return first_[i]; }

 private:
  std::int64_t in_;
  Workspace lower_;  // out positions, then in + 1 starts of segments
  FloatBuffer weight_;
  const std::int64_t* first_ = nullptr;
};

/// Reads a row as floats.
template <class T>
void load_row(const T* __restrict in, float* __restrict out, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]);
}

// --- bilinear, forward --------------------------------------------------------------------------------------------

/// out[o] = (1 - weight) in[lower] + weight in[upper] for every pixel o of a row. `in` and `out` are kVector longer.
void stretch_row(const float* __restrict in, const AxisTable& columns, std::int64_t out_width, std::int64_t channels,
                 float* __restrict out) {
  const std::int64_t padded = whole_vectors(channels);
  for (std::int64_t o = 0; o < out_width; ++o) {
    const float* __restrict left = in + columns.lower(o) * channels;
    const float* __restrict right = in + columns.upper(o) * channels;
    const float u = columns.weight(o);
    float* __restrict pixel = out + o * channels;
    for (std::int64_t c = 0; c < padded; c += kVector) {
#pragma omp simd
      for (std::int64_t i = c; i < c + kVector; ++i) pixel[i] = (1.0F - u) * left[i] + u * right[i];
    }
  }
}

/// The two stretched rows in use. Output rows are visited in order, so a row is stretched once per thread.
template <class T>
class StretchedRows {
 public:
  StretchedRows(const TensorView& x, const AxisTable& columns, std::int64_t out_width)
      : x_(x),
        columns_(columns),
        out_width_(out_width),
        input_(x.w() * x.c() + kVector),
        rows_{FloatBuffer(out_width * x.c() + kVector), FloatBuffer(out_width * x.c() + kVector)} {
    std::fill_n(input_.data() + x.w() * x.c(), kVector, 0.0F);
  }

  /// Stretched input row `row` (counted over all images); `keep` is another row that must stay available.
  const float* get(std::int64_t row, std::int64_t keep) {
    for (std::size_t slot = 0; slot < 2; ++slot) {
      if (held_[slot] == row) return rows_[slot].data();
    }
    const std::size_t slot = held_[0] == keep ? 1 : 0;
    const std::int64_t length = x_.w() * x_.c();
    load_row(x_.ptr<T>() + row * length, input_.data(), length);
    stretch_row(input_.data(), columns_, out_width_, x_.c(), rows_[slot].data());
    held_[slot] = row;
    return rows_[slot].data();
  }

 private:
  const TensorView& x_;
  const AxisTable& columns_;
  std::int64_t out_width_;
  FloatBuffer input_;
  FloatBuffer rows_[2];
  std::int64_t held_[2] = {-1, -1};
};

void blend(const float* __restrict a, const float* __restrict b, float v, std::int64_t n, float* __restrict out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = (1.0F - v) * a[i] + v * b[i];
}

template <class T>
void bilinear(const TensorView& x, bool align_corners, const TensorView& y) {
  const AxisTable rows({x.h(), y.h(), align_corners});
  const AxisTable columns({x.w(), y.w(), align_corners});
  const RowStore<T> store(y);
  const std::int64_t length = y.w() * y.c();
  parallel_for(y.n() * y.h(), kGrain / length + 1, [&](std::int64_t begin, std::int64_t end) {
    StretchedRows<T> stretched(x, columns, y.w());
    const FloatBuffer buffer(row_store_floats(kChunk));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t image = r / y.h() * x.h();
      const std::int64_t top = image + rows.lower(r % y.h());
      const std::int64_t bottom = image + rows.upper(r % y.h());
      const float* a = stretched.get(top, bottom);
      const float* b = stretched.get(bottom, top);
      for (std::int64_t i = 0; i < length; i += kChunk) {
        const std::int64_t count = std::min(kChunk, length - i);
        T* out = y.ptr<T>() + r * length + i;
        float* target = store.target(out, buffer.data());
        blend(a + i, b + i, rows.weight(r % y.h()), count, target);
        store.finish(target, out, count);
      }
    }
    store.fence();
  });
}

// --- bilinear, backward -------------------------------------------------------------------------------------------

/// here += (1 - v) g, next += v g
template <class T>
void add_weighted(const T* __restrict g, float v, std::int64_t n, float* __restrict here, float* __restrict next) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = static_cast<float>(g[i]);
    here[i] += (1.0F - v) * value;
    next[i] += v * value;
  }
}

/// Adds segment `i` of image `image` to the two accumulators; `next` starts from zero.
template <class T>
void add_segment(const TensorView& gy, const AxisTable& rows, std::int64_t image, std::int64_t i, float* here,
                 float* next) {
  const std::int64_t length = gy.w() * gy.c();
  for (std::int64_t k = 0; k < length; k += kChunk) {
    const std::int64_t count = std::min(kChunk, length - k);
    std::fill_n(next + k, count, 0.0F);
    for (std::int64_t o = rows.first(i); o < rows.first(i + 1); ++o) {
      add_weighted(gy.ptr<T>() + (image * gy.h() + o) * length + k, rows.weight(o), count, here + k, next + k);
    }
  }
}

/// The transpose of stretch_row, one input pixel after the other. `in` and `out` are kVector longer.
void narrow_row(const float* __restrict in, const AxisTable& columns, std::int64_t width, std::int64_t channels,
                float* __restrict out) {
  const std::int64_t padded = whole_vectors(channels);
  for (std::int64_t p = 0; p < width; ++p) {
    for (std::int64_t c = 0; c < padded; c += kVector) {
      float sum[kVector] = {};
      const float* __restrict from = in + c;
      for (std::int64_t o = p > 0 ? columns.first(p - 1) : 0; p > 0 && o < columns.first(p); ++o) {
        const float u = columns.weight(o);
#pragma omp simd
        for (std::int64_t i = 0; i < kVector; ++i) sum[i] += u * from[o * channels + i];
      }
      for (std::int64_t o = columns.first(p); o < columns.first(p + 1); ++o) {
        const float u = 1.0F - columns.weight(o);
#pragma omp simd
        for (std::int64_t i = 0; i < kVector; ++i) sum[i] += u * from[o * channels + i];
      }
      std::copy_n(sum, kVector, out + p * channels + c);
    }
  }
}

void finish_row(const float* in, float* out, std::int64_t n) { std::copy_n(in, n, out); }
void finish_row(const float* in, bfloat16* out, std::int64_t n) { round_row(in, out, n); }

template <class T>
void bilinear_backward(const TensorView& gy, bool align_corners, const TensorView& gx) {
  const AxisTable rows({gx.h(), gy.h(), align_corners});
  const AxisTable columns({gx.w(), gy.w(), align_corners});
  const std::int64_t wide = gy.w() * gy.c();
  const std::int64_t narrow = gx.w() * gx.c();
  const std::int64_t row_cost = std::max<std::int64_t>(gy.numel() / (gx.n() * gx.h()), 1);
  parallel_for(gx.n() * gx.h(), kGrain / row_cost + 1, [&](std::int64_t begin, std::int64_t end) {
    const FloatBuffer accumulators[2] = {FloatBuffer(wide + kVector), FloatBuffer(wide + kVector)};
    const FloatBuffer result(narrow + kVector);
    float* here = accumulators[0].data();
    float* next = accumulators[1].data();
    std::fill_n(here, wide + kVector, 0.0F);
    std::fill_n(next, wide + kVector, 0.0F);
    if (begin % gx.h() != 0) {  // what the row before this range passes on
      add_segment<T>(gy, rows, begin / gx.h(), begin % gx.h() - 1, here, next);
      std::swap(here, next);
    }
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t i = r % gx.h();
      if (i == 0) std::fill_n(here, wide, 0.0F);
      add_segment<T>(gy, rows, r / gx.h(), i, here, next);
      narrow_row(here, columns, gx.w(), gx.c(), result.data());
      finish_row(result.data(), gx.ptr<T>() + r * narrow, narrow);
      std::swap(here, next);
    }
  });
}

// --- nearest ------------------------------------------------------------------------------------------------------

template <class T>
void nearest(const TensorView& x, const TensorView& y) {
  const std::int64_t channels = x.c();
  const std::int64_t length = y.w() * channels;
  parallel_for(y.n() * y.h(), kGrain / length + 1, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t copied = -1;  // input row of the output row above
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t row = r / y.h() * x.h() + nearest_source(r % y.h(), x.h(), y.h());
      T* out = y.ptr<T>() + r * length;
      if (row == copied) {
        std::copy_n(out - length, length, out);
        continue;
      }
      const T* in = x.ptr<T>() + row * x.w() * channels;
      for (std::int64_t o = 0; o < y.w(); ++o) {
        const T* pixel = in + nearest_source(o, x.w(), y.w()) * channels;
        for (std::int64_t c = 0; c < channels; ++c) out[o * channels + c] = pixel[c];
      }
      copied = row;
    }
  });
}

template <class T>
void nearest_backward(const TensorView& gy, const TensorView& gx) {
  const std::int64_t channels = gx.c();
  const std::int64_t wide = gy.w() * channels;
  const std::int64_t narrow = gx.w() * channels;
  const std::int64_t row_cost = std::max<std::int64_t>(gy.numel() / (gx.n() * gx.h()), 1);
  parallel_for(gx.n() * gx.h(), kGrain / row_cost + 1, [&](std::int64_t begin, std::int64_t end) {
    const FloatBuffer sum(wide);
    const FloatBuffer result(narrow);
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t image = r / gx.h() * gy.h();
      const std::int64_t i = r % gx.h();
      float* __restrict s = sum.data();
      std::fill_n(s, wide, 0.0F);
      for (std::int64_t o = nearest_first(i, gx.h(), gy.h()); o < nearest_first(i + 1, gx.h(), gy.h()); ++o) {
        const T* __restrict g = gy.ptr<T>() + (image + o) * wide;
#pragma omp simd
        for (std::int64_t k = 0; k < wide; ++k) s[k] += static_cast<float>(g[k]);
      }
      float* __restrict out = result.data();
      std::fill_n(out, narrow, 0.0F);
      for (std::int64_t o = 0; o < gy.w(); ++o) {
        float* __restrict pixel = out + nearest_source(o, gx.w(), gy.w()) * channels;
        for (std::int64_t c = 0; c < channels; ++c) pixel[c] += s[o * channels + c];
      }
      finish_row(out, gx.ptr<T>() + r * narrow, narrow);
    }
  });
}

}  // namespace

void resize_bilinear_cpu(const TensorView& x, bool align_corners, const TensorView& y) {
  visit_fast_dtype("resize_bilinear", x.dtype, [&]<class T>(T) { bilinear<T>(x, align_corners, y); });
}

void resize_bilinear_backward_cpu(const TensorView& gy, bool align_corners, const TensorView& gx) {
  visit_fast_dtype("resize_bilinear", gy.dtype, [&]<class T>(T) { bilinear_backward<T>(gy, align_corners, gx); });
}

void resize_nearest_cpu(const TensorView& x, const TensorView& y) {
  visit_dtype(x.dtype, [&]<class T>(T) { nearest<T>(x, y); });
}

void resize_nearest_backward_cpu(const TensorView& gy, const TensorView& gx) {
  visit_fast_dtype("resize_nearest", gy.dtype, [&]<class T>(T) { nearest_backward<T>(gy, gx); });
}

}  // namespace limbeck::ops
