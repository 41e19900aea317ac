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

std::vector<std::int32_t> axis_table(const GatherGeometry& g, std::size_t axis, std::int64_t results,
                                     std::int64_t sources) {
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

  AxisClasses(const std::vector<std::int32_t>& table, std::int64_t results) {
    const auto n = static_cast<std::size_t>(results);
    const std::size_t taps = table.size() / n;
    std::vector<std::vector<bool>> sets;
    for (std::size_t o = 0; o < n; ++o) {
      std::vector<bool> set(taps);
      for (std::size_t k = 0; k < taps; ++k) set[k] = table[k * n + o] >= 0;
      const auto it = std::find(sets.begin(), sets.end(), set);
      class_of.push_back(it - sets.begin());
      if (it == sets.end()) sets.push_back(set);
    }
    count = static_cast<std::int64_t>(sets.size());
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

/// A tile ready to be multiplied: where its rows are, and the stretches of k that are not all zero.
template <class T>
struct ReadyTile {
  const T* a = nullptr;
  std::int64_t rows = 0, row_stride = 0;
  std::array<std::int64_t, tile::kRows> result_offset{};
  tile::Segment* segments = nullptr;
  std::size_t segment_count = 0;
};

/// Prepares tiles. Its unit is a step: one tap, or one kernel row if taps are merged (Note [merged taps]).
template <class T>
class Gatherer {
 public:
  Gatherer(const GatherPlan& plan, const GatherMultiply<T>& job) : plan_(plan), g_(plan.geometry), job_(job) {
    taps_per_step_ = merges_taps(g_, job.depth) ? g_.kernel[1] : 1;
    steps_ = g_.kernel[0] * g_.kernel[1] / taps_per_step_;
    depth_ = tile::round_up_pair<T>(taps_per_step_ * job.depth);
    const std::int64_t step = g_.transposed != 0 ? 1 : g_.stride[1];
    run_stride_ = step * job.source_pixel;
    // Rows at a distance of 4 KiB would fall into the same few cache lines: those are copied even if evenly spaced.
    // Merged taps of one channel group among several do not lie side by side.
    const bool in_place = taps_per_step_ > 1 ? job.source_pixel == job.depth : depth_ == job.depth;
    runs_ = in_place && run_stride_ * static_cast<std::int64_t>(sizeof(T)) % 4096 != 0;
    gathered_stride_ = steps_ * depth_ + 64 / static_cast<std::int64_t>(sizeof(T));
    source_size_ = g_.images * g_.source_height * g_.source_width * job.source_pixel;
  }

  [[nodiscard]] std::int64_t steps() const { return steps_; }
  [[nodiscard]] std::int64_t k_all() const { return steps_ * depth_; }
  [[nodiscard]] bool copies() const { return !runs_ || !plan_.one_tap; }
  /// Elements of memory that prepare() needs per tile.
  [[nodiscard]] std::int64_t tile_size() const { return tile::kRows * gathered_stride_; }

  /// Fills `out` for tile number t; `buffer` has room for one tile, out.segments for one entry per step.
  void prepare(std::int64_t t, T* buffer, ReadyTile<T>& out) const {
    const TileSpan span = plan_.tile(t);
    out.rows = span.rows;
    for (std::int64_t i = 0; i < out.rows; ++i) {
      out.result_offset[static_cast<std::size_t>(i)] = plan_.pixel(span.first + i) * job_.result_pixel;
    }
    if (!runs_ || span.run == 0 || !run(span, out)) gather(span, buffer, out);
  }

 private:
  using Position = GatherPlan::Position;
  [[nodiscard]] Position position(std::int64_t pixel) const { return plan_.position(pixel); }
  [[nodiscard]] std::int64_t source(const Position& p, std::int64_t tap) const {
    return plan_.source(p, tap, job_.source_pixel);
  }

  /// Reads the rows in place. False if that is impossible: a merged step partly outside, or a padded one at the very end.
  [[nodiscard]] bool run(const TileSpan& span, ReadyTile<T>& out) const {
    out.a = job_.source;
    out.row_stride = run_stride_;
    out.segment_count = 0;
    const Position p = position(plan_.pixel(span.first));
    for (std::int64_t step = 0; step < steps_; ++step) {
      const std::int64_t tap = step * taps_per_step_;
      const std::int64_t first = source(p, tap);
      const std::int64_t last = source(p, tap + taps_per_step_ - 1);
      if (taps_per_step_ > 1) {
        bool row_inside = false;
        for (std::int64_t k = 0; k < taps_per_step_; ++k) row_inside = row_inside || source(p, tap + k) >= 0;
        if (!row_inside) continue;
        const std::int64_t end = first + (span.rows - 1) * run_stride_ + depth_;
        if (first < 0 || last < 0 || end > source_size_) return false;
      }
      if (first >= 0) append(out, {first, step * depth_, depth_});
    }
    return true;
  }

  void gather(const TileSpan& span, T* buffer, ReadyTile<T>& out) const {
    out.a = buffer;
    out.row_stride = gathered_stride_;
    out.segment_count = 0;
    std::array<Position, tile::kRows> positions;
    const auto rows = static_cast<std::size_t>(span.rows);
    for (std::size_t i = 0; i < rows; ++i)
      positions[i] = position(plan_.pixel(span.first + static_cast<std::int64_t>(i)));
    std::int64_t used = 0;  // k values gathered so far
    for (std::int64_t step = 0; step < steps_; ++step) {
      bool any = false;
      for (std::int64_t k = 0; k < taps_per_step_; ++k) {
        std::array<std::int64_t, tile::kRows> from{};
        for (std::size_t i = 0; i < rows; ++i) {
          from[i] = source(positions[i], step * taps_per_step_ + k);
          any = any || from[i] >= 0;
        }
        if (!any && k + 1 == taps_per_step_) break;
        const bool last = k + 1 == taps_per_step_;
        const std::int64_t room = last ? depth_ - k * job_.depth : job_.depth;  // the last tap also fills the padding
        for (std::size_t i = 0; i < rows; ++i) {
          T* to = buffer + static_cast<std::int64_t>(i) * gathered_stride_ + used + k * job_.depth;
          copy_row(to, job_.source + std::max<std::int64_t>(from[i], 0), from[i] >= 0 ? job_.depth : 0, room);
        }
      }
      if (!any) continue;
      append(out, {used, step * depth_, depth_});
      used += depth_;
    }
  }

  /// Adds a stretch, to the last one if it continues it in both operands.
  static void append(ReadyTile<T>& out, const tile::Segment& s) {
    if (out.segment_count > 0) {
      auto& last = out.segments[out.segment_count - 1];
      if (last.b + last.length == s.b && last.a + last.length == s.a) {
        last.length += s.length;
        return;
      }
    }
    out.segments[out.segment_count++] = s;
  }

  const GatherPlan& plan_;
  const GatherGeometry& g_;
  const GatherMultiply<T>& job_;
  std::int64_t taps_per_step_ = 1, steps_ = 0, depth_ = 0, run_stride_ = 0, gathered_stride_ = 0, source_size_ = 0;
  bool runs_ = false;
};

template <class T>
void multiply_tile(const ReadyTile<T>& t, std::int64_t k_all, std::int64_t p, const tile::Panels& panels,
                   const GatherMultiply<T>& job) {
  const std::int64_t column = p * tile::kColumns;
  tile::Finish<T> f;
  f.y = job.result + column;
  f.residual = job.residual != nullptr ? job.residual + column : nullptr;
  f.row_offset = t.result_offset.data();
  f.bias = job.bias != nullptr ? job.bias + column : nullptr;
  f.columns = panels.used(p);
  f.act = job.act;
  const auto& kernels = panels.width(p) == tile::kColumns ? tile::Kernels<T>::wide : tile::Kernels<T>::narrow;
  kernels[static_cast<std::size_t>(t.rows - 1)](t.a, t.row_stride, job.packed + column * k_all, t.segments,
                                                t.segment_count, f);
}

/// Cuts the visiting order into tiles: runs where at least kShortestRun evenly spaced neighbours share their taps, and
/// full tiles of whatever lies between.
class TileCutter {
 public:
  TileCutter(GatherPlan& plan, const AxisClasses& columns) : plan_(plan), columns_(columns) {
    step_ = plan.geometry.transposed != 0 ? plan.geometry.stride[1] : 1;
  }

  void cut() {
    const std::int64_t pixels = plan_.pixels();
    std::int64_t pending = 0;  // first pixel that is in no tile yet
    for (std::int64_t i = 0; i < pixels;) {
      std::int64_t end = i + 1;
      while (end < pixels && follows(end)) ++end;
      const std::int64_t parts = (end - i + tile::kRows - 1) / tile::kRows;
      if ((end - i) / parts >= kShortestRun) {
        gather(pending, i);
        for (std::int64_t part = 0; part < parts; ++part) {
          add(i + (end - i) * part / parts, i + (end - i) * (part + 1) / parts, true);
        }
        pending = end;
      }
      i = end;
    }
    gather(pending, pixels);
  }

 private:
  static constexpr std::int64_t kShortestRun = 8;

  /// True if pixel number i of the order continues the run of its predecessor.
  [[nodiscard]] bool follows(std::int64_t i) const {
    const std::int64_t a = plan_.pixel(i - 1);
    const std::int64_t b = plan_.pixel(i);
    const std::int64_t width = plan_.geometry.width;
    return b == a + step_ && b / width == a / width &&
           columns_.class_of[static_cast<std::size_t>(a % width)] ==
               columns_.class_of[static_cast<std::size_t>(b % width)];
  }
  void gather(std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += tile::kRows) add(i, std::min<std::int64_t>(end, i + tile::kRows), false);
  }
  void add(std::int64_t begin, std::int64_t end, bool run) {
    plan_.tiles.push_back({static_cast<std::int32_t>(begin), static_cast<std::int16_t>(end - begin),
                           static_cast<std::int16_t>(run ? 1 : 0)});
  }

  GatherPlan& plan_;
  const AxisClasses& columns_;
  std::int64_t step_ = 1;
};

}  // namespace

GatherPlan::GatherPlan(const GatherGeometry& g) : geometry(g) {
  source_row = axis_table(g, 0, g.height, g.source_height);
  source_column = axis_table(g, 1, g.width, g.source_width);
  one_tap =
      g.kernel[0] * g.kernel[1] == 1 && g.stride[0] == 1 && g.stride[1] == 1 && g.padding[0] == 0 && g.padding[1] == 0;
  if (one_tap) return;

  const AxisClasses rows(source_row, g.height);
  const AxisClasses columns(source_column, g.width);
  if (rows.count * columns.count > 1) {
    std::vector<std::vector<std::int32_t>> buckets(static_cast<std::size_t>(rows.count * columns.count));
    for (std::int64_t i = 0; i < pixels(); ++i) {
      const auto column = static_cast<std::size_t>(i % g.width);
      const auto row = static_cast<std::size_t>(i / g.width % g.height);
      buckets[static_cast<std::size_t>(rows.class_of[row] * columns.count + columns.class_of[column])].push_back(
          static_cast<std::int32_t>(i));
    }
    for (const auto& bucket : buckets) order.insert(order.end(), bucket.begin(), bucket.end());
  }
  TileCutter(*this, columns).cut();
}

std::int64_t GatherPlan::tile_count() const {
  return one_tap ? (pixels() + tile::kRows - 1) / tile::kRows : static_cast<std::int64_t>(tiles.size());
}

TileSpan GatherPlan::tile(std::int64_t t) const {
  if (!one_tap) return tiles[static_cast<std::size_t>(t)];
  const std::int64_t first = t * tile::kRows;
  return {static_cast<std::int32_t>(first),
          static_cast<std::int16_t>(std::min<std::int64_t>(tile::kRows, pixels() - first)), 1};
}

bool merges_taps(const GatherGeometry& g, std::int64_t depth) {
  constexpr std::int64_t kFewChannels = 16;
  return g.transposed == 0 && depth < kFewChannels && g.kernel[1] > 1 && g.dilation[1] == 1;
}

const GatherPlan& gather_plan(GatherGeometry g) {
  thread_local LruCache<GatherGeometry, GatherPlan> cache(256);
  return cache.get(g, [&] { return GatherPlan(g); });
}

GatherGeometry conv_geometry(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& options,
                             bool transposed) {
  const Shape& result = transposed ? x : y;
  const Shape& source = transposed ? y : x;
  return {x[0],         result[2],      result[3],       source[2],        source[3],
          {w[2], w[3]}, options.stride, options.padding, options.dilation, transposed ? 1 : 0};
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
    T* const out = packed + p * tile::kColumns * k_all + t * depth_padded * width;
    const float* const in = w + t * channels + p * tile::kColumns * c_step;
    const auto place = [&](std::int64_t d, std::int64_t c) -> T& {
      return out[d / kPair * kPair * width + c * kPair + d % kPair];
    };
    if (used < width || depth < depth_padded) std::fill_n(out, depth_padded * width, T(0.0F));
    if (transposed) {  // the inner loop follows the memory of w
      for (std::int64_t d = 0; d < depth; ++d) {
        for (std::int64_t c = 0; c < used; ++c) place(d, c) = T(in[d * d_step + c]);
      }
    } else {
      for (std::int64_t c = 0; c < used; ++c) {
        for (std::int64_t d = 0; d < depth; ++d) place(d, c) = T(in[c * c_step + d]);
      }
    }
  });
}

template <class T>
void gather_multiply(const GatherPlan& plan, const GatherMultiply<T>& job) {
  const Gatherer<T> gatherer(plan, job);
  const tile::Panels panels{job.columns};
  const std::int64_t tiles = plan.tile_count();
  const std::int64_t threads = max_threads();

  // A task is a block of tiles times a range of panels. The panels of a range pass over a block while its rows are in
  // cache; there must be enough tasks to keep every thread busy until the end.
  const std::int64_t tile_bytes = gatherer.tile_size() * static_cast<std::int64_t>(sizeof(T));
  std::int64_t block = std::clamp<std::int64_t>(kBlockBytes / tile_bytes, 1, kMostTiles);
  block = std::clamp<std::int64_t>(tiles / (4 * threads), 1, block);
  const std::int64_t blocks = (tiles + block - 1) / block;
  const std::int64_t most_ranges = std::max<std::int64_t>(1, panels.count() / 4);
  const std::int64_t ranges = std::clamp<std::int64_t>(8 * threads / blocks, 1, most_ranges);

  const auto steps = static_cast<std::size_t>(gatherer.steps());
  const auto buffer_bytes = gatherer.copies() ? static_cast<std::size_t>(block * tile_bytes) : 0;
  const std::size_t segment_bytes = (static_cast<std::size_t>(block) * steps * sizeof(tile::Segment) + 63) / 64 * 64;
  parallel_tasks_with(
      blocks * ranges, [&] { return Workspace(buffer_bytes + segment_bytes); },
      [&](const Workspace& memory, std::int64_t task) {
        auto* const segments = memory.as<tile::Segment>();
        auto* const buffer = reinterpret_cast<T*>(memory.as<char>() + segment_bytes);
        const std::int64_t first = task / ranges * block;
        const std::int64_t last = std::min(tiles, first + block);
        std::array<ReadyTile<T>, kMostTiles> ready;
        for (std::int64_t t = first; t < last; ++t) {
          auto& r = ready[static_cast<std::size_t>(t - first)];
          r.segments = segments + static_cast<std::size_t>(t - first) * steps;
          gatherer.prepare(t, buffer + (t - first) * gatherer.tile_size(), r);
        }
        const std::int64_t range = task % ranges;
        for (std::int64_t p = panels.count() * range / ranges; p < panels.count() * (range + 1) / ranges; ++p) {
          for (std::int64_t t = first; t < last; ++t) {
            multiply_tile(ready[static_cast<std::size_t>(t - first)], gatherer.k_all(), p, panels, job);
          }
        }
      });
}

template void pack_weights<float>(const float*, std::int64_t, std::int64_t, std::int64_t, bool, float*);
template void pack_weights<bfloat16>(const float*, std::int64_t, std::int64_t, std::int64_t, bool, bfloat16*);
template void gather_multiply<float>(const GatherPlan&, const GatherMultiply<float>&);
template void gather_multiply<bfloat16>(const GatherPlan&, const GatherMultiply<bfloat16>&);

}  // namespace limbeck::ops
