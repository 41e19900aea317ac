// What this is: the weight gradient of the dense convolution; see ops/conv2d_tiles.h.
//
//   gw[f][tap][c] = sum over pixels m of gy[m][f] * x[source(m, tap)][c]
//
// The long sum runs over pixels, which lie far apart in memory, so both operands are copied together in chunks of
// kChunk pixels: gy as [pixel][filters of a group], x as [pixel][channels of a panel] (bf16: pixels in pairs, see
// Note [pairs] of ops/tile_gemm.h). A product of such chunks is a tile_gemm outer product.
// The sum is split into parts that depend on the problem alone; each part is summed by one thread, then the parts are
// added in order: results repeat bit for bit whatever the number of threads.
#include <algorithm>
#include <array>
#include <vector>

#include "core/memory.h"
#include "ops/conv2d_tiles.h"
#include "ops/task_queue.h"

namespace limbeck::ops {
namespace {

using simd::Bits;
using simd::Half;
using simd::kLanes;

constexpr std::int64_t kChunk = 256;       // pixels
constexpr std::int64_t kPartPixels = 512;  // fewest pixels of a part
constexpr std::int64_t kMostParts = 32;
constexpr std::int64_t kPartsMemory = std::int64_t{4} << 20;  // floats
constexpr std::int64_t kWantedTasks = 16;
constexpr std::int64_t kMostRowTiles = 8;  // of a filter group

/// Copies `count` neighbouring values of each row (null: zeros), `width` >= count of them, as [row][width].
void pack(const float* const* rows, std::int64_t row_count, std::int64_t count, std::int64_t width, float* out) {
  const std::int64_t whole = count / kLanes * kLanes;
  for (std::int64_t k = 0; k < row_count; ++k, out += width) {
    const float* row = rows[k];
    if (row == nullptr) {
      std::fill_n(out, width, 0.0F);
      continue;
    }
    for (std::int64_t c = 0; c < whole; c += kLanes) simd::store(out + c, simd::load(row + c));
    for (std::int64_t c = whole; c < width; ++c) out[c] = c < count ? row[c] : 0.0F;
  }
}

/// As above with rows in pairs: [row / 2][width][2]; an odd last row is paired with zeros.
void pack(const bfloat16* const* rows, std::int64_t row_count, std::int64_t count, std::int64_t width, bfloat16* out) {
  const auto get = [](const bfloat16* p) {
    Half h{};
    if (p != nullptr) std::memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, Bits);
  };
  const std::int64_t whole = count / kLanes * kLanes;
  for (std::int64_t k = 0; k < row_count; k += 2, out += 2 * width) {
    const bfloat16* even = rows[k];
    const bfloat16* odd = k + 1 < row_count ? rows[k + 1] : nullptr;
    for (std::int64_t c = 0; c < whole; c += kLanes) {
      const Bits pairs = get(even != nullptr ? even + c : nullptr) | get(odd != nullptr ? odd + c : nullptr) << 16U;
      std::memcpy(static_cast<void*>(out + 2 * c), &pairs, sizeof pairs);
    }
    for (std::int64_t c = whole; c < width; ++c) {
      out[2 * c] = even != nullptr && c < count ? even[c] : bfloat16(0.0F);
      out[2 * c + 1] = odd != nullptr && c < count ? odd[c] : bfloat16(0.0F);
    }
  }
}

template <class T>
struct WeightJob {
  const GatherPlan& plan;
  const T* x;
  std::int64_t x_pixel, channels;
  const T* gy;
  std::int64_t gy_pixel, filters;

  [[nodiscard]] const GatherGeometry& geometry() const { return plan.geometry; }
  /// Taps that are copied together (Note [merged taps] of ops/conv2d_tiles.h), and the number of such groups.
  [[nodiscard]] std::int64_t taps_per_step() const {
    return merges_taps(geometry(), channels) ? geometry().kernel[1] : 1;
  }
  [[nodiscard]] std::int64_t steps() const { return geometry().kernel[0] * geometry().kernel[1] / taps_per_step(); }
  [[nodiscard]] std::int64_t columns() const { return channels * taps_per_step(); }
  [[nodiscard]] std::int64_t pixels() const { return plan.pixels(); }
};

/// Memory of one thread.
template <class T>
struct ChunkBuffers {
  ChunkBuffers(std::int64_t group, std::int64_t border_columns)
      : gy(static_cast<std::size_t>(kChunk * group) * sizeof(T)),
        x(kChunk * tile::kColumns * sizeof(T)),
        border(static_cast<std::size_t>(kChunk * border_columns) * sizeof(T)) {}
  Workspace gy, x, border;
};

/// Finds the columns of step `step` for each of `count` pixels: in x, in `border` if some taps are outside, or null if all
/// are. Returns true if any is inside.
template <class T>
bool find_rows(const WeightJob<T>& job, std::int64_t step, const std::int64_t* pixels, std::int64_t count, T* border,
               const T** rows) {
  const GatherGeometry& g = job.geometry();
  const std::int64_t merged = job.taps_per_step();
  const std::int64_t first_tap = step * merged;
  const std::int32_t* rows_of_tap = job.plan.source_row.data() + first_tap / g.kernel[1] * g.height;
  const std::int32_t* columns_of_tap = job.plan.source_column.data() + first_tap % g.kernel[1] * g.width;
  bool any = false;
  for (std::int64_t k = 0; k < count; ++k) {
    rows[k] = nullptr;
    const std::int64_t line = pixels[k] / g.width;
    const std::int64_t row = rows_of_tap[line % g.height];
    if (row < 0) continue;
    const std::int32_t* columns = columns_of_tap + pixels[k] % g.width;
    const T* source = job.x + (line / g.height * g.source_height + row) * g.source_width * job.x_pixel;
    std::int64_t inside = 0;
    for (std::int64_t m = 0; m < merged; ++m) inside += columns[m * g.width] >= 0 ? 1 : 0;
    if (inside == 0) continue;
    any = true;
    // Neighbouring pixels continue each other only where no other channel group lies between them.
    if (inside == merged && (merged == 1 || job.x_pixel == job.channels)) {
      rows[k] = source + columns[0] * job.x_pixel;
      continue;
    }
    T* to = border + k * job.columns();
    rows[k] = to;
    for (std::int64_t m = 0; m < merged; ++m, to += job.channels) {
      const std::int64_t column = columns[m * g.width];
      if (column < 0) {
        std::fill_n(to, job.channels, T(0.0F));
      } else {
        std::copy_n(source + column * job.x_pixel, job.channels, to);
      }
    }
  }
  return any;
}

/// Pixels first .. last-1 for filters f0 .. f0+group-1, added up in `gw` ([filters][steps][columns]).
template <class T>
void sum_part(const WeightJob<T>& job, std::int64_t first, std::int64_t last, std::int64_t f0, std::int64_t group,
              const ChunkBuffers<T>& memory, float* gw) {
  constexpr std::int64_t kPair = tile::kPair<T>;
  const std::int64_t steps = job.steps();
  const std::int64_t columns = job.columns();
  const tile::Panels panels{columns};
  PooledVector<bool> written(static_cast<std::size_t>(steps));
  std::array<const T*, kChunk> rows;
  std::array<const T*, kChunk> panel_rows;
  std::array<std::int64_t, kChunk> pixels;
  T* const a = memory.gy.template as<T>();
  T* const b = memory.x.template as<T>();

  for (std::int64_t m = first; m < last; m += kChunk) {
    const std::int64_t count = std::min(kChunk, last - m);
    for (std::int64_t k = 0; k < count; ++k) {
      const auto at = static_cast<std::size_t>(k);
      pixels[at] = job.plan.pixel(m + k);
      rows[at] = job.gy + pixels[at] * job.gy_pixel + f0;
    }
    pack(rows.data(), count, group, group, a);

    for (std::int64_t step = 0; step < steps; ++step) {
      if (!find_rows(job, step, pixels.data(), count, memory.border.template as<T>(), rows.data())) continue;
      const bool add = written[static_cast<std::size_t>(step)];
      written[static_cast<std::size_t>(step)] = true;
      for (std::int64_t p = 0; p < panels.count(); ++p) {
        const std::int64_t width = panels.width(p);
        for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
          panel_rows[k] = rows[k] != nullptr ? rows[k] + p * tile::kColumns : nullptr;
        }
        pack(panel_rows.data(), count, panels.used(p), width, b);
        const auto& kernels = width == tile::kColumns ? tile::OuterKernels<T>::wide : tile::OuterKernels<T>::narrow;
        for (std::int64_t f = 0; f < group; f += tile::kRows) {
          const auto tile_rows = static_cast<std::size_t>(std::min<std::int64_t>(tile::kRows, group - f));
          kernels[tile_rows - 1](a + f * kPair, group * kPair, b, width * kPair, count, add,
                                 gw + ((f0 + f) * steps + step) * columns + p * tile::kColumns, steps * columns,
                                 panels.used(p));
        }
      }
    }
  }
  for (std::int64_t step = 0; step < steps; ++step) {  // no pixel sees it
    if (written[static_cast<std::size_t>(step)]) continue;
    for (std::int64_t f = f0; f < f0 + group; ++f) std::fill_n(gw + (f * steps + step) * columns, columns, 0.0F);
  }
}

}  // namespace

template <class T>
void gather_weights(const GatherPlan& plan, const T* x, std::int64_t x_pixel, std::int64_t channels, const T* gy,
                    std::int64_t gy_pixel, std::int64_t filters, float* gw) {
  const WeightJob<T> job{plan, x, x_pixel, channels, gy, gy_pixel, filters};
  const std::int64_t size = filters * job.steps() * job.columns();
  const std::int64_t pixels = job.pixels();
  const std::int64_t parts =
      std::clamp<std::int64_t>(std::min(pixels / kPartPixels, kPartsMemory / size), 1, kMostParts);
  const std::int64_t tiles = (filters + tile::kRows - 1) / tile::kRows;
  std::int64_t group_tiles = kMostRowTiles;
  while (group_tiles > 1 && parts * ((tiles + group_tiles - 1) / group_tiles) < kWantedTasks) group_tiles /= 2;
  const std::int64_t groups = (tiles + group_tiles - 1) / group_tiles;

  const Workspace partial(parts > 1 ? static_cast<std::size_t>(parts * size) * sizeof(float) : 0);
  parallel_tasks_with(
      parts * groups,
      [&] { return ChunkBuffers<T>(group_tiles * tile::kRows, job.taps_per_step() > 1 ? job.columns() : 0); },
      [&](const ChunkBuffers<T>& memory, std::int64_t task) {
        const std::int64_t part = task / groups;
        const std::int64_t f0 = task % groups * group_tiles * tile::kRows;
        const std::int64_t group = std::min(group_tiles * tile::kRows, filters - f0);
        sum_part(job, pixels * part / parts, pixels * (part + 1) / parts, f0, group, memory,
                 parts > 1 ? partial.as<float>() + part * size : gw);
      });
  if (parts == 1) return;
  parallel_for(size, 1 << 12, [&](auto begin, auto end) {
    const auto* from = partial.as<float>();
    for (std::int64_t i = begin; i < end; ++i) gw[i] = from[i];
    for (std::int64_t part = 1; part < parts; ++part) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) gw[i] += from[part * size + i];
    }
  });
}

template void gather_weights<float>(const GatherPlan&, const float*, std::int64_t, std::int64_t, const float*,
                                    std::int64_t, std::int64_t, float*);
template void gather_weights<bfloat16>(const GatherPlan&, const bfloat16*, std::int64_t, std::int64_t, const bfloat16*,
                                       std::int64_t, std::int64_t, float*);

}  // namespace limbeck::ops
