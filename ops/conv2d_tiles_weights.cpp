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

constexpr std::int64_t kChunk = 256;         // pixels
constexpr std::int64_t kPartPixels = 512;    // fewest pixels of a part
constexpr std::int64_t kMostParts = 32;
constexpr std::int64_t kPartsMemory = std::int64_t{4} << 20;  // floats
constexpr std::int64_t kWantedTasks = 16;
constexpr std::int64_t kMostRowTiles = 8;    // of a filter group

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
  [[nodiscard]] std::int64_t taps() const { return geometry().kernel[0] * geometry().kernel[1]; }
  [[nodiscard]] std::int64_t pixels() const { return geometry().images * geometry().height * geometry().width; }
  [[nodiscard]] std::int64_t pixel(std::int64_t m) const {
    return plan.pixel(m);
  }
};

/// Memory of one thread.
template <class T>
struct ChunkBuffers {
  explicit ChunkBuffers(std::int64_t group)
      : gy(static_cast<std::size_t>(kChunk * group) * sizeof(T)), x(kChunk * tile::kColumns * sizeof(T)) {}
  Workspace gy, x;
};

/// Pixels first .. last-1 for filters f0 .. f0+group-1, added up in `gw` ([filters][taps][channels]).
template <class T>
void sum_part(const WeightJob<T>& job, std::int64_t first, std::int64_t last, std::int64_t f0, std::int64_t group,
              const ChunkBuffers<T>& memory, float* gw) {
  constexpr std::int64_t kPair = tile::kPair<T>;
  const GatherGeometry& g = job.geometry();
  const std::int64_t taps = job.taps();
  const tile::Panels panels{job.channels};
  std::vector<bool> written(static_cast<std::size_t>(taps));
  std::array<const T*, kChunk> rows;
  std::array<std::int64_t, kChunk> pixels;

  for (std::int64_t m = first; m < last; m += kChunk) {
    const std::int64_t count = std::min(kChunk, last - m);
    for (std::int64_t k = 0; k < count; ++k) {
      const auto at = static_cast<std::size_t>(k);
      pixels[at] = job.pixel(m + k);
      rows[at] = job.gy + pixels[at] * job.gy_pixel + f0;
    }
    pack(rows.data(), count, group, group, memory.gy.template as<T>());

    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int32_t* rows_of_tap = job.plan.source_row.data() + tap / g.kernel[1] * g.height;
      const std::int32_t* columns_of_tap = job.plan.source_column.data() + tap % g.kernel[1] * g.width;
      bool any = false;
      for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
        const std::int64_t line = pixels[k] / g.width;
        const std::int64_t r = rows_of_tap[line % g.height];
        const std::int64_t c = columns_of_tap[pixels[k] % g.width];
        const bool inside = r >= 0 && c >= 0;
        const std::int64_t source = (line / g.height * g.source_height + r) * g.source_width + c;
        rows[k] = inside ? job.x + source * job.x_pixel : nullptr;
        any = any || inside;
      }
      if (!any) continue;
      const bool add = written[static_cast<std::size_t>(tap)];
      written[static_cast<std::size_t>(tap)] = true;
      for (std::int64_t p = 0; p < panels.count(); ++p) {
        const std::int64_t width = panels.width(p);
        std::array<const T*, kChunk> panel_rows;
        for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
          panel_rows[k] = rows[k] != nullptr ? rows[k] + p * tile::kColumns : nullptr;
        }
        pack(panel_rows.data(), count, panels.used(p), width, memory.x.template as<T>());
        const auto& kernels = width == tile::kColumns ? tile::OuterKernels<T>::wide : tile::OuterKernels<T>::narrow;
        for (std::int64_t f = 0; f < group; f += tile::kRows) {
          const auto tile_rows = static_cast<std::size_t>(std::min<std::int64_t>(tile::kRows, group - f));
          kernels[tile_rows - 1](memory.gy.template as<T>() + f * kPair, group * kPair, memory.x.template as<T>(),
                                 width * kPair, count, add,
                                 gw + ((f0 + f) * taps + tap) * job.channels + p * tile::kColumns,
                                 taps * job.channels, panels.used(p));
        }
      }
    }
  }
  for (std::int64_t tap = 0; tap < taps; ++tap) {
    if (written[static_cast<std::size_t>(tap)]) continue;
    for (std::int64_t f = f0; f < f0 + group; ++f) std::fill_n(gw + (f * taps + tap) * job.channels, job.channels, 0.0F);
  }
}

}  // namespace

template <class T>
void gather_weights(const GatherPlan& plan, const T* x, std::int64_t x_pixel, std::int64_t channels, const T* gy,
                    std::int64_t gy_pixel, std::int64_t filters, float* gw) {
  const WeightJob<T> job{plan, x, x_pixel, channels, gy, gy_pixel, filters};
  const std::int64_t size = filters * job.taps() * channels;
  const std::int64_t pixels = job.pixels();
  const std::int64_t parts = std::clamp<std::int64_t>(std::min(pixels / kPartPixels, kPartsMemory / size), 1, kMostParts);
  const std::int64_t tiles = (filters + tile::kRows - 1) / tile::kRows;
  std::int64_t group_tiles = kMostRowTiles;
  while (group_tiles > 1 && parts * ((tiles + group_tiles - 1) / group_tiles) < kWantedTasks) group_tiles /= 2;
  const std::int64_t groups = (tiles + group_tiles - 1) / group_tiles;

  const Workspace partial(parts > 1 ? static_cast<std::size_t>(parts * size) * sizeof(float) : 0);
  parallel_tasks_with(
      parts * groups, [&] { return ChunkBuffers<T>(group_tiles * tile::kRows); },
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
