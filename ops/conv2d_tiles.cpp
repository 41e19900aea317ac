// What this is: the gather-multiply of forward and data gradient; see ops/conv2d_tiles.h.
#include "ops/conv2d_tiles.h"

#include <algorithm>
#include <cstring>

#include "core/lru_cache.h"
#include "core/memory.h"
#include "ops/task_queue.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kBlockBytes = 384 << 10;  // of gathered rows: they stay in the second-level cache
constexpr std::int64_t kMostTiles = 16;          // per block; bounds the segment lists
constexpr double kWorthSorting = 0.03;

/// Source position of tap k at result position o, or -1.
std::int32_t source_of(const GatherGeometry& g, std::size_t axis, std::int64_t o, std::int64_t k, std::int64_t size) {
  std::int64_t i = 0;
  if (g.transposed == 0) {
    i = o * g.stride[axis] - g.padding[axis] + k * g.dilation[axis];
  } else {
    i = o + g.padding[axis] - k * g.dilation[axis];
    if (i < 0 || i % g.stride[axis] != 0) return -1;
    i /= g.stride[axis];
  }
  return i >= 0 && i < size ? static_cast<std::int32_t>(i) : -1;
}

std::vector<std::int32_t> axis_table(const GatherGeometry& g, std::size_t axis, std::int64_t results, std::int64_t sources) {
  std::vector<std::int32_t> table;
  for (std::int64_t k = 0; k < g.kernel[axis]; ++k) {
    for (std::int64_t o = 0; o < results; ++o) table.push_back(source_of(g, axis, o, k, sources));
  }
  return table;
}

/// Numbers the positions of an axis by the set of taps they see; equal sets get equal numbers.
struct AxisClasses {
  std::vector<std::int64_t> class_of;
  std::int64_t count = 0;
  double share = 0.0;  // of taps that read inside

  AxisClasses(const std::vector<std::int32_t>& table, std::int64_t results) {
    const auto n = static_cast<std::size_t>(results);
    const std::size_t taps = table.size() / n;
    std::vector<std::vector<bool>> sets;
    std::size_t seen = 0;
    for (std::size_t o = 0; o < n; ++o) {
      std::vector<bool> set(taps);
      for (std::size_t k = 0; k < taps; ++k) {
        set[k] = table[k * n + o] >= 0;
        seen += set[k] ? 1 : 0;
      }
      const auto it = std::find(sets.begin(), sets.end(), set);
      class_of.push_back(it - sets.begin());
      if (it == sets.end()) sets.push_back(set);
    }
    count = static_cast<std::int64_t>(sets.size());
    share = static_cast<double>(seen) / static_cast<double>(table.size());
  }
};

template <class T>
void copy_row(T* to, const T* from, std::int64_t count, std::int64_t padded) {
  constexpr std::int64_t kChunk = 64 / sizeof(T);
  std::int64_t i = 0;
  for (; i + kChunk <= count; i += kChunk) std::memcpy(static_cast<void*>(to + i), from + i, 64);
  for (; i < count; ++i) to[i] = from[i];
  for (; i < padded; ++i) to[i] = T(0.0F);
}

/// The gathered rows of one tile and the stretches of k that are not all zero.
template <class T>
struct GatheredTile {
  const T* a = nullptr;
  std::int64_t rows = 0;
  std::array<std::int64_t, tile::kRows> pixel{};  // result pixels
  tile::Segment* segments = nullptr;
  std::size_t segment_count = 0;
};

template <class T>
class Gatherer {
 public:
  Gatherer(const GatherPlan& plan, const GatherMultiply<T>& job) : plan_(plan), g_(plan.geometry), job_(job) {
    pixels_ = g_.images * g_.height * g_.width;
    taps_ = g_.kernel[0] * g_.kernel[1];
    depth_padded_ = tile::round_up_pair<T>(job.depth);
    // Twelve rows at a distance of 4 KiB would fall into the same few cache lines: those are copied even if contiguous.
    direct_ = plan.direct && depth_padded_ == job.depth &&
              job.source_pixel * static_cast<std::int64_t>(sizeof(T)) % 4096 != 0;
    row_stride_ = direct_ ? job.source_pixel : taps_ * depth_padded_ + 64 / static_cast<std::int64_t>(sizeof(T));
  }

  [[nodiscard]] bool direct() const { return direct_; }
  [[nodiscard]] std::int64_t row_stride() const { return row_stride_; }
  [[nodiscard]] std::int64_t tiles() const { return (pixels_ + tile::kRows - 1) / tile::kRows; }
  [[nodiscard]] std::int64_t tile_bytes() const {
    return tile::kRows * row_stride_ * static_cast<std::int64_t>(sizeof(T));
  }
  [[nodiscard]] std::int64_t taps() const { return taps_; }

  /// Fills `out` for tile number t; `buffer` has room for one tile, out.segments for one entry per tap.
  void gather(std::int64_t t, T* buffer, GatheredTile<T>& out) const {
    const std::int64_t first = t * tile::kRows;
    out.rows = std::min<std::int64_t>(tile::kRows, pixels_ - first);
    for (std::int64_t i = 0; i < out.rows; ++i) {
      const auto at = static_cast<std::size_t>(first + i);
      out.pixel[static_cast<std::size_t>(i)] = plan_.order.empty() ? first + i : plan_.order[at];
    }
    if (direct_) {
      out.a = job_.source + first * job_.source_pixel;
      out.segments[0] = {0, 0, depth_padded_};
      out.segment_count = 1;
      return;
    }
    out.a = buffer;
    out.segment_count = 0;
    std::array<std::int64_t, tile::kRows> image{}, row{}, column{};
    for (std::size_t i = 0; i < static_cast<std::size_t>(out.rows); ++i) {
      const std::int64_t line = out.pixel[i] / g_.width;
      column[i] = out.pixel[i] % g_.width;
      row[i] = line % g_.height;
      image[i] = line / g_.height * g_.source_height;
    }
    std::int64_t used = 0;  // k values gathered so far
    for (std::int64_t tap = 0; tap < taps_; ++tap) {
      const std::int32_t* rows_of_tap = plan_.source_row.data() + tap / g_.kernel[1] * g_.height;
      const std::int32_t* columns_of_tap = plan_.source_column.data() + tap % g_.kernel[1] * g_.width;
      std::array<const T*, tile::kRows> from{};
      bool any = false;
      for (std::size_t i = 0; i < static_cast<std::size_t>(out.rows); ++i) {
        const std::int64_t r = rows_of_tap[row[i]];
        const std::int64_t c = columns_of_tap[column[i]];
        if (r < 0 || c < 0) continue;
        from[i] = job_.source + ((image[i] + r) * g_.source_width + c) * job_.source_pixel;
        any = true;
      }
      if (!any) continue;
      for (std::size_t i = 0; i < static_cast<std::size_t>(out.rows); ++i) {
        T* to = buffer + static_cast<std::int64_t>(i) * row_stride_ + used;
        copy_row(to, from[i], from[i] != nullptr ? job_.depth : 0, depth_padded_);
      }
      append(out, {used, tap * depth_padded_, depth_padded_});
      used += depth_padded_;
    }
  }

 private:
  static void append(GatheredTile<T>& out, const tile::Segment& s) {
    if (out.segment_count > 0) {
      auto& last = out.segments[out.segment_count - 1];
      if (last.b + last.length == s.b) {  // in `a` the stretches always follow each other
        last.length += s.length;
        return;
      }
    }
    out.segments[out.segment_count++] = s;
  }

  const GatherPlan& plan_;
  const GatherGeometry& g_;
  const GatherMultiply<T>& job_;
  std::int64_t pixels_ = 0, taps_ = 0, depth_padded_ = 0, row_stride_ = 0;
  bool direct_ = false;
};

template <class T>
void multiply_tile(const GatheredTile<T>& t, std::int64_t row_stride, std::int64_t k_all, std::int64_t p,
                   const tile::Panels& panels, const GatherMultiply<T>& job) {
  const std::int64_t column = p * tile::kColumns;
  tile::Finish<T> f;
  for (std::size_t i = 0; i < static_cast<std::size_t>(t.rows); ++i) {
    const std::int64_t at = t.pixel[i] * job.result_pixel + column;
    f.y[i] = job.result + at;
    if (job.residual != nullptr) f.residual[i] = job.residual + at;
  }
  f.has_residual = job.residual != nullptr;
  f.bias = job.bias != nullptr ? job.bias + column : nullptr;
  f.act = job.act;
  f.columns = panels.used(p);
  const auto& kernels = panels.width(p) == tile::kColumns ? tile::Kernels<T>::wide : tile::Kernels<T>::narrow;
  kernels[static_cast<std::size_t>(t.rows - 1)](t.a, row_stride, job.packed + column * k_all, t.segments,
                                                t.segment_count, f);
}

}  // namespace

GatherPlan::GatherPlan(const GatherGeometry& g) : geometry(g) {
  source_row = axis_table(g, 0, g.height, g.source_height);
  source_column = axis_table(g, 1, g.width, g.source_width);
  const bool one_tap = g.kernel[0] * g.kernel[1] == 1;
  direct = one_tap && g.stride[0] == 1 && g.stride[1] == 1 && g.padding[0] == 0 && g.padding[1] == 0;

  const AxisClasses rows(source_row, g.height);
  const AxisClasses columns(source_column, g.width);
  if (1.0 - rows.share * columns.share < kWorthSorting) return;
  std::vector<std::vector<std::int32_t>> buckets(static_cast<std::size_t>(rows.count * columns.count));
  for (std::int64_t pixel = 0; pixel < g.images * g.height * g.width; ++pixel) {
    const auto column = static_cast<std::size_t>(pixel % g.width);
    const auto row = static_cast<std::size_t>(pixel / g.width % g.height);
    buckets[static_cast<std::size_t>(rows.class_of[row] * columns.count + columns.class_of[column])].push_back(
        static_cast<std::int32_t>(pixel));
  }
  for (const auto& bucket : buckets) order.insert(order.end(), bucket.begin(), bucket.end());
}

const GatherPlan& gather_plan(const GatherGeometry& g) {
  thread_local LruCache<GatherGeometry, GatherPlan> cache(256);
  return cache.get(g, [&] { return GatherPlan(g); });
}

GatherGeometry conv_geometry(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& options,
                             bool transposed) {
  const Shape& result = transposed ? x : y;
  const Shape& source = transposed ? y : x;
  return {x[0], result[2], result[3], source[2], source[3], {w[2], w[3]}, options.stride, options.padding,
          options.dilation, transposed ? 1 : 0};
}

template <class T>
void pack_weights(const float* w, std::int64_t filters, std::int64_t taps, std::int64_t channels, bool transposed,
                  T* packed) {
  const std::int64_t depth = transposed ? filters : channels;
  const std::int64_t columns = transposed ? channels : filters;
  // w(depth d, tap t, column c) = w[d * d_step + t * channels + c * c_step]
  const std::int64_t d_step = transposed ? taps * channels : 1;
  const std::int64_t c_step = transposed ? 1 : taps * channels;
  const std::int64_t depth_padded = tile::round_up_pair<T>(depth);
  const std::int64_t k_all = taps * depth_padded;
  constexpr std::int64_t kPair = tile::kPair<T>;
  const tile::Panels panels{columns};
  parallel_tasks(panels.count() * taps, [&](std::int64_t task) {
    const std::int64_t p = task / taps;
    const std::int64_t t = task % taps;
    const std::int64_t width = panels.width(p);
    const std::int64_t used = panels.used(p);
    T* out = packed + p * tile::kColumns * k_all + t * depth_padded * width;
    const float* in = w + t * channels + p * tile::kColumns * c_step;
    for (std::int64_t d = 0; d < depth_padded; d += kPair) {
      for (std::int64_t c = 0; c < width; ++c) {
        for (std::int64_t e = 0; e < kPair; ++e) {
          const bool exists = c < used && d + e < depth;
          out[(d * width) + c * kPair + e] = exists ? T(in[(d + e) * d_step + c * c_step]) : T(0.0F);
        }
      }
    }
  });
}

template <class T>
void gather_multiply(const GatherPlan& plan, const GatherMultiply<T>& job) {
  const Gatherer<T> gatherer(plan, job);
  const tile::Panels panels{job.columns};
  const std::int64_t k_all = gatherer.taps() * tile::round_up_pair<T>(job.depth);
  const std::int64_t tiles = gatherer.tiles();
  const std::int64_t threads = max_threads();

  // A task is a block of tiles times a range of panels. The panels of a range pass over a block while its rows are in
  // cache; there must be enough tasks to keep every thread busy until the end.
  std::int64_t block = std::clamp<std::int64_t>(kBlockBytes / gatherer.tile_bytes(), 1, kMostTiles);
  block = std::clamp<std::int64_t>(tiles / (4 * threads), 1, block);
  const std::int64_t blocks = (tiles + block - 1) / block;
  const std::int64_t most_ranges = std::max<std::int64_t>(1, panels.count() / 4);
  const std::int64_t ranges = std::clamp<std::int64_t>(8 * threads / blocks, 1, most_ranges);

  const auto taps = static_cast<std::size_t>(gatherer.taps());
  const auto buffer_bytes = gatherer.direct() ? 0 : static_cast<std::size_t>(block * gatherer.tile_bytes());
  const std::size_t segment_bytes = (static_cast<std::size_t>(block) * taps * sizeof(tile::Segment) + 63) / 64 * 64;
  parallel_tasks_with(
      blocks * ranges, [&] { return Workspace(buffer_bytes + segment_bytes); },
      [&](const Workspace& memory, std::int64_t task) {
        auto* const segments = memory.as<tile::Segment>();
        auto* const buffer = reinterpret_cast<T*>(memory.as<char>() + segment_bytes);
        const std::int64_t first = task / ranges * block;
        const std::int64_t last = std::min(tiles, first + block);
        std::array<GatheredTile<T>, kMostTiles> gathered;
        for (std::int64_t t = first; t < last; ++t) {
          auto& g = gathered[static_cast<std::size_t>(t - first)];
          g.segments = segments + static_cast<std::size_t>(t - first) * taps;
          gatherer.gather(t, buffer + (t - first) * tile::kRows * gatherer.row_stride(), g);
        }
        const std::int64_t range = task % ranges;
        for (std::int64_t p = panels.count() * range / ranges; p < panels.count() * (range + 1) / ranges; ++p) {
          for (std::int64_t t = first; t < last; ++t) {
            multiply_tile(gathered[static_cast<std::size_t>(t - first)], gatherer.row_stride(), k_all, p, panels, job);
          }
        }
      });
}

template void pack_weights<float>(const float*, std::int64_t, std::int64_t, std::int64_t, bool, float*);
template void pack_weights<bfloat16>(const float*, std::int64_t, std::int64_t, std::int64_t, bool, bfloat16*);
template void gather_multiply<float>(const GatherPlan&, const GatherMultiply<float>&);
template void gather_multiply<bfloat16>(const GatherPlan&, const GatherMultiply<bfloat16>&);

}  // namespace limbeck::ops
