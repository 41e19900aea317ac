// What this is: dense and grouped int8 convolution: pixels are gathered, multiplied with packed weights, and finished in floats.
// Read next: ops/conv2d_tiles.h, whose tables (GatherPlan) this uses; ops/conv2d_i8_amx.cpp, the products on matrix units.
//
// Note [int8 tiles]
//   The unit is a pair of tiles, 32 pixels, times a panel of 32 filters, in steps (chunks) of 64 channels. A pixel is a row of bytes,
//   the weights are [64/4 channels][16 filters][4 channels] per tile: what the dot products of 4 bytes want, of matrix units and of
//   vectors. Where a chunk is longer than what there is to sum, the weights are zero, so it does not matter what the pixels' bytes are
//   there. Thus the rows of a 1x1 convolution are the map itself.
// Note [zero point]
//   The kernels sum w q, wanted is the sum of w (q - z). The difference, z times the sum of the weights, is subtracted at the end. Taps that
//   lie outside of the map for all 32 pixels are not multiplied at all (Note [pixel order] of ops/conv2d_tiles.h), and not subtracted.
// Note [int8 steps]
//   With fewer than 64 channels the taps of the whole kernel lie side by side and are one step, otherwise each is a step.
#include <algorithm>
#include <cstring>

#include "ops/conv2d_engine.h"
#include "ops/conv2d_i8_store.h"
#include "ops/conv2d_tiles.h"
#include "ops/pair_blocks.h"
#include "ops/task_queue.h"

namespace limbeck::ops {
namespace i8 {
namespace {

/// Sizes of the packed weights of one group.
struct WeightShape {
  std::int64_t groups, filters, taps, channels;
  bool merged;
  std::int64_t steps, depth;  ///< bytes of one step
  WeightShape(const Shape& w, const Conv2dOptions& options)
      : groups(options.groups), filters(w[0] / options.groups), taps(w[2] * w[3]), channels(w[1]) {
    merged = taps > 1 && (channels < kChunk || taps > kMostSteps);
    steps = merged ? 1 : taps;
    depth = merged ? taps * channels : channels;
  }
  [[nodiscard]] std::int64_t step_chunks() const { return (depth + kChunk - 1) / kChunk; }
  [[nodiscard]] std::int64_t chunks() const { return steps * step_chunks(); }
  [[nodiscard]] std::int64_t panels() const { return (filters + kColumns - 1) / kColumns; }
  [[nodiscard]] std::int64_t width(std::int64_t p) const { return filters - p * kColumns > kSide ? 2 : 1; }
  [[nodiscard]] std::int64_t panel_at(std::int64_t g, std::int64_t p) const {
    return (g * ((filters + kSide - 1) / kSide) + 2 * p) * chunks() * kTileBytes;
  }
  /// Sums of the weights per filter, for Note [zero point]: one row per step, and one for all.
  [[nodiscard]] std::int64_t sums_at(std::int64_t g) const {
    return panel_at(groups, 0) + g * (steps + 1) * panels() * kColumns * 4;
  }
};

void pack_group(const std::int8_t* weights, const WeightShape& shape, std::int64_t g, char* packed) {
  auto* sums = reinterpret_cast<std::int32_t*>(packed + shape.sums_at(g));
  const std::int64_t row = shape.panels() * kColumns;
  std::fill_n(sums, (shape.steps + 1) * row, 0);
  for (std::int64_t p = 0; p < shape.panels(); ++p) {
    auto* out = reinterpret_cast<std::int8_t*>(packed + shape.panel_at(g, p));
    for (std::int64_t chunk = 0; chunk < shape.chunks(); ++chunk) {
      const std::int64_t step = chunk / shape.step_chunks();
      for (std::int64_t c = 0; c < shape.width(p) * kSide; ++c) {
        const std::int64_t filter = p * kColumns + c;
        std::int8_t* column = out + (chunk * shape.width(p) + c / kSide) * kTileBytes + c % kSide * 4;
        for (std::int64_t k = 0; k < kChunk; ++k) {
          const std::int64_t channel = chunk % shape.step_chunks() * kChunk + k;
          const bool inside = filter < shape.filters && channel < shape.depth;
          const std::int8_t value =
              inside ? weights[((g * shape.filters + filter) * shape.steps + step) * shape.depth + channel]
                     : std::int8_t{0};
          column[k / 4 * kSide * 4 + k % 4] = value;
          sums[step * row + filter] += value;
          sums[shape.steps * row + filter] += value;
        }
      }
    }
  }
}

// --- pixels ---------------------------------------------------------------------------------------------------------

/// `count` bytes, or rounded up to 64 where `end` of the source allows it: what follows in `to` is written later or never read.
void copy_bytes(std::uint8_t* to, const std::uint8_t* from, std::int64_t count, const std::uint8_t* end) {
  for (; count >= kChunk; count -= kChunk, to += kChunk, from += kChunk) std::memcpy(to, from, kChunk);
  if (count > 0 && from + kChunk <= end) {
    std::memcpy(to, from, kChunk);
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(count));
  }
}

struct ReadyPair : PixelPair {
  std::uint64_t visited = 0;  ///< steps, a bit each, of all parts so far
};

/// Pixels of one group into rows.
class PixelGatherer {
 public:
  PixelGatherer(const GatherPlan& plan, const WeightShape& w, const ConvI8& job, std::int64_t group)
      : plan_(plan),
        g_(plan.geometry),
        w_(w),
        x_(job.x.ptr<std::uint8_t>() + group * w.channels),
        end_(job.x.ptr<std::uint8_t>() + job.x.numel()),
        pixel_(job.x.c()),
        zero_(job.x_zero) {}

  /// Bytes between two rows of `chunks` chunks: an odd number of cache lines, so that rows do not fall on the same ones.
  static std::int64_t row_bytes(std::int64_t chunks) { return (chunks | 1) * kChunk; }

  /// Chunks [first, last) of the sum for pixels pair * kRows and on. `out` has room for them, and a chunk more.
  void gather(std::int64_t pair, std::int64_t first, std::int64_t last, std::uint8_t* out, ReadyPair& ready) const {
    ready.stretch_count = 0;
    const std::int64_t rows = std::min(kRows, plan_.pixels() - pair * kRows);
    const std::uint8_t* from = x_ + pair * kRows * pixel_ + first * kChunk;
    if (plan_.one_tap && rows == kRows && from + (kRows - 1) * pixel_ + (last - first) * kChunk <= end_) {
      append(ready, 0, first, last - first);  // the map itself
      ready.pixels = from;
      ready.stride = pixel_;
      return;
    }
    ready.pixels = out;
    ready.stride = row_bytes(last - first);
    std::array<GatherPlan::Position, kRows> positions;
    for (std::int64_t i = 0; i < rows; ++i)
      positions[static_cast<std::size_t>(i)] = position(plan_.pixel(pair * kRows + i));
    if (w_.merged) {
      for (std::int64_t i = 0; i < rows; ++i) kernel(positions[static_cast<std::size_t>(i)], out + i * ready.stride);
      append(ready, 0, 0, w_.chunks());
      return;
    }
    for (std::int64_t step = first / w_.step_chunks(); step * w_.step_chunks() < last; ++step) {
      const std::int64_t begin = std::max<std::int64_t>(first - step * w_.step_chunks(), 0);
      const std::int64_t end = std::min(last - step * w_.step_chunks(), w_.step_chunks());
      if (!tap(positions, rows, step, begin, end, out, ready.stride)) continue;
      append(ready, step, step * w_.step_chunks() + begin, end - begin);
      out += (end - begin) * kChunk;
    }
  }

 private:
  /// plan_.position() in 32 bits, in which processors divide several times faster.
  [[nodiscard]] GatherPlan::Position position(std::int64_t pixel) const {
    const auto at = static_cast<std::uint32_t>(pixel), width = static_cast<std::uint32_t>(g_.width);
    const std::uint32_t line = at / width, height = static_cast<std::uint32_t>(g_.height);
    const std::uint32_t image = line / height;
    return {image * g_.source_height, line - image * height, at - line * width};
  }

  /// One step of all rows; false if it lies outside for all.
  bool tap(const std::array<GatherPlan::Position, kRows>& positions, std::int64_t rows, std::int64_t step,
           std::int64_t begin, std::int64_t end, std::uint8_t* out, std::int64_t stride) const {
    std::array<std::int64_t, kRows> from;
    const std::int32_t* lines = plan_.source_row.data() + step / g_.kernel[1] * g_.height;
    const std::int32_t* columns = plan_.source_column.data() + step % g_.kernel[1] * g_.width;
    bool any = false;
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      from[at] = source(positions[at], lines[positions[at].row], columns[positions[at].column]);
      any = any || from[at] >= 0;
    }
    if (!any) return false;
    const std::int64_t count = std::min(w_.depth, end * kChunk) - begin * kChunk;
    for (std::int64_t i = 0; i < rows; ++i, out += stride) {
      const std::int64_t at = from[static_cast<std::size_t>(i)];
      if (at < 0) {
        std::memset(out, zero_, static_cast<std::size_t>(count));
      } else {
        copy_bytes(out, x_ + at + begin * kChunk, count, end_);
      }
    }
    return true;
  }

  /// Offset of the pixel in that line and column of p's image, negative if one of them is.
  [[nodiscard]] std::int64_t source(const GatherPlan::Position& p, std::int64_t line, std::int64_t column) const {
    return line < 0 || column < 0 ? -1 : ((p.image + line) * g_.source_width + column) * pixel_;
  }

  /// All taps of one pixel, side by side. Those of a kernel row that lie so in the map too are copied at once.
  void kernel(const GatherPlan::Position& p, std::uint8_t* out) const {
    const std::int64_t taps = g_.kernel[1];
    const std::int32_t* columns = plan_.source_column.data() + p.column;
    const bool whole =
        g_.dilation[1] == 1 && pixel_ == w_.channels && columns[0] >= 0 && columns[(taps - 1) * g_.width] >= 0;
    for (std::int64_t r = 0; r < g_.kernel[0]; ++r) {
      const std::int64_t line = plan_.source_row[static_cast<std::size_t>(r * g_.height + p.row)];
      if (whole && line >= 0) {
        copy_bytes(out, x_ + source(p, line, columns[0]), taps * pixel_, end_);
        out += taps * pixel_;
        continue;
      }
      for (std::int64_t s = 0; s < taps; ++s, out += w_.channels) {
        const std::int64_t from = source(p, line, columns[s * g_.width]);
        if (from < 0) {
          std::memset(out, zero_, static_cast<std::size_t>(w_.channels));
        } else {
          copy_bytes(out, x_ + from, w_.channels, end_);
        }
      }
    }
  }

  static void append(ReadyPair& ready, std::int64_t step, std::int64_t first, std::int64_t count) {
    ready.visited |= std::uint64_t{1} << static_cast<unsigned>(step);
    if (ready.stretch_count > 0) {
      Stretch& last = ready.stretches[ready.stretch_count - 1];
      if (last.first + last.count == first) {
        last.count += count;
        return;
      }
    }
    ready.stretches[ready.stretch_count++] = {first, count};
  }

  const GatherPlan& plan_;
  const GatherGeometry& g_;
  const WeightShape& w_;
  const std::uint8_t* x_;
  const std::uint8_t* end_;
  std::int64_t pixel_;  // bytes
  std::int32_t zero_;
};

// --- one group ------------------------------------------------------------------------------------------------------

class Group {
 public:
  Group(const ConvI8& job, const WeightShape& w, const GatherPlan& plan, std::int64_t group, const char* packed)
      : job_(job),
        w_(w),
        plan_(plan),
        group_(group),
        packed_(packed),
        gatherer_(plan, w, job, group),
        blocks_({.pairs = (plan.pixels() + kRows - 1) / kRows,
                 .chunks = w.chunks(),
                 .panels = w.panels(),
                 .pair_bytes = kRows * PixelGatherer::row_bytes(w.chunks()),
                 .chunk_bytes = kRows * kChunk,
                 .spare = 1,  // row_bytes() may round up by one
                 .may_part = !w.merged}) {
    const ConvEngine engine = ConvEngineGuard::engine();
    amx_ = has_amx() && (engine == ConvEngine::kAuto || engine == ConvEngine::kAmx);
  }

  void run() const {
    struct Memory {
      TileScope shapes;
      Workspace pixels, sums;
      std::array<ReadyPair, PairBlocks::kMostPairs> ready;
      Memory(bool amx, std::int64_t pixel_bytes, std::int64_t sum_bytes)
          : shapes(amx), pixels(static_cast<std::size_t>(pixel_bytes)), sums(static_cast<std::size_t>(sum_bytes)) {}
    };
    const std::int64_t pair_bytes = kRows * PixelGatherer::row_bytes(blocks_.part);
    blocks_.run(
        [&] { return Memory(amx_, blocks_.block * pair_bytes + kChunk, blocks_.kept * kSums * 4); },
        [&](Memory& memory, std::int64_t i, std::int64_t pair, std::int64_t first, std::int64_t last) {
          ReadyPair& ready = memory.ready[static_cast<std::size_t>(i)];
          if (first == 0) ready.visited = 0;
          gatherer_.gather(pair, first, last, memory.pixels.as<std::uint8_t>() + i * pair_bytes, ready);
        },
        [&](Memory& memory, std::int64_t i, std::int64_t pair, std::int64_t p, std::int64_t at, std::int64_t k) {
          auto* sums = memory.sums.as<std::int32_t>() + at * kSums;
          const ReadyPair& ready = memory.ready[static_cast<std::size_t>(i)];
          multiply(ready, pair, p, sums, k > 0);
          if (k + 1 < blocks_.parts) return;
          if (job_.y.dtype == DType::kU8) {
            finish<std::uint8_t>(ready, pair, p, sums);
          } else {
            finish<float>(ready, pair, p, sums);
          }
        });
  }

 private:
  [[nodiscard]] std::int64_t rows(std::int64_t pair) const { return std::min(kRows, plan_.pixels() - pair * kRows); }

  void multiply(const ReadyPair& ready, std::int64_t pair, std::int64_t p, std::int32_t* sums, bool resume) const {
    const auto* weights = reinterpret_cast<const std::int8_t*>(packed_ + w_.panel_at(group_, p));
    (amx_ ? multiply_amx : multiply_loops)(ready, rows(pair), weights, w_.width(p), sums, resume);
  }

  /// What is to be subtracted from the sums of panel p, see Note [zero point].
  void offsets(const ReadyPair& ready, std::int64_t p, std::int32_t* out) const {
    std::fill_n(out, kColumns, 0);
    if (job_.x_zero == 0) return;
    const auto* sums = reinterpret_cast<const std::int32_t*>(packed_ + w_.sums_at(group_)) + p * kColumns;
    const std::int64_t row = w_.panels() * kColumns;
    const auto add = [&](std::int64_t s) {
      for (std::int64_t c = 0; c < kColumns; ++c) out[c] += job_.x_zero * sums[s * row + c];
    };
    if (ready.visited == ~std::uint64_t{0} >> static_cast<unsigned>(64 - w_.steps)) {
      add(w_.steps);
      return;
    }
    for (std::int64_t s = 0; s < w_.steps; ++s) {
      if ((ready.visited >> static_cast<unsigned>(s) & 1U) != 0) add(s);
    }
  }

  template <class Y>
  void finish(const ReadyPair& ready, std::int64_t pair, std::int64_t p, const std::int32_t* sums) const {
    std::array<std::int32_t, kColumns> offset;
    offsets(ready, p, offset.data());
    std::array<std::int64_t, kRows> at;  // of results, in y and in the residual
    const std::int64_t count = rows(pair);
    for (std::int64_t i = 0; i < count; ++i)
      at[static_cast<std::size_t>(i)] = plan_.pixel(pair * kRows + i) * job_.y.c() + group_ * w_.filters + p * kColumns;
    const std::uint8_t* residual = job_.residual.defined() ? job_.residual.ptr<std::uint8_t>() : nullptr;
    Y* y = job_.y.ptr<Y>();
    for (std::int64_t j = 0; j < w_.width(p); ++j) {
      const std::int64_t column = p * kColumns + j * kSide;
      const Finish finish(job_.result, offset.data() + j * kSide, group_ * w_.filters + column,
                          std::min(kSide, w_.filters - column));
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t to = at[static_cast<std::size_t>(i)] + j * kSide;
        finish(sums + (i / kSide * 2 + j) * 256 + i % kSide * kSide, residual != nullptr ? residual + to : nullptr,
               y + to);
      }
    }
  }

  const ConvI8& job_;
  const WeightShape& w_;
  const GatherPlan& plan_;
  std::int64_t group_;
  const char* packed_;
  PixelGatherer gatherer_;
  PairBlocks blocks_;
  bool amx_;
};

// --- products in vectors --------------------------------------------------------------------------------------------

/// Rows i .. i + Rows - 1 times one tile of columns.
template <std::int64_t Rows>
void multiply_rows(const PixelPair& pair, std::int64_t i, const std::int8_t* weights, std::int64_t width,
                   std::int32_t* sums, bool resume) {
#if defined(LIMBECK_I8_AVX512) && defined(__AVX512VNNI__)
  __m512i total[Rows];
  for (std::int64_t r = 0; r < Rows; ++r) total[r] = resume ? _mm512_loadu_si512(sums + r * kSide) : __m512i{};
#else
  std::int32_t total[Rows][kSide] = {};
  for (std::int64_t r = 0; r < Rows && resume; ++r) std::copy_n(sums + r * kSide, kSide, total[r]);
#endif
  const std::uint8_t* a = pair.pixels + i * pair.stride;
  for (std::size_t s = 0; s < pair.stretch_count; ++s) {
    const Stretch& stretch = pair.stretches[s];
    for (std::int64_t c = 0; c < stretch.count; ++c) {
      const std::int8_t* b = weights + (stretch.first + c) * width * kTileBytes;
      for (std::int64_t k = 0; k < kChunk; k += 4, a += 4, b += 4 * kSide) {
#if defined(LIMBECK_I8_AVX512) && defined(__AVX512VNNI__)
        const __m512i w = _mm512_loadu_si512(b);
        for (std::int64_t r = 0; r < Rows; ++r) {
          std::int32_t four = 0;
          std::memcpy(&four, a + r * pair.stride, 4);
          total[r] = _mm512_dpbusd_epi32(total[r], _mm512_set1_epi32(four), w);
        }
#else
        for (std::int64_t r = 0; r < Rows; ++r) {
          const std::uint8_t* four = a + r * pair.stride;
#pragma omp simd
          for (std::int64_t o = 0; o < kSide; ++o) {
            total[r][o] +=
                four[0] * b[4 * o] + four[1] * b[4 * o + 1] + four[2] * b[4 * o + 2] + four[3] * b[4 * o + 3];
          }
        }
#endif
      }
    }
  }
  for (std::int64_t r = 0; r < Rows; ++r) std::memcpy(sums + r * kSide, &total[r], sizeof total[r]);
}

}  // namespace

void multiply_loops(const PixelPair& pair, std::int64_t rows, const std::int8_t* weights, std::int64_t width,
                    std::int32_t* sums, bool resume) {
  constexpr std::int64_t kAtOnce = 4;
  for (std::int64_t j = 0; j < width; ++j) {
    const std::int8_t* tile = weights + j * kTileBytes;
    std::int64_t i = 0;
    const auto to = [&] { return sums + (i / kSide * 2 + j) * 256 + i % kSide * kSide; };
    for (; i + kAtOnce <= rows; i += kAtOnce) multiply_rows<kAtOnce>(pair, i, tile, width, to(), resume);
    for (; i < rows; ++i) multiply_rows<1>(pair, i, tile, width, to(), resume);
  }
}

}  // namespace i8

std::size_t conv2d_i8_packed_bytes(const Shape& w, const Conv2dOptions& options) {
  const i8::WeightShape shape(w, options);
  return static_cast<std::size_t>(shape.sums_at(shape.groups));
}

void conv2d_i8_pack(const std::int8_t* weights, const Shape& w, const Conv2dOptions& options, void* packed) {
  const i8::WeightShape shape(w, options);
  parallel_tasks(shape.groups, [&](std::int64_t g) { i8::pack_group(weights, shape, g, static_cast<char*>(packed)); });
}

void conv2d_i8_cpu(const ConvI8& job, const void* packed) {
  const GatherPlan& plan = gather_plan(conv_geometry(job.x.shape, job.w, job.y.shape, job.options, false));
  const i8::WeightShape shape(job.w, job.options);
  for (std::int64_t g = 0; g < shape.groups; ++g)
    i8::Group(job, shape, plan, g, static_cast<const char*>(packed)).run();
}

}  // namespace limbeck::ops
