// What this is: dense convolution for inference on the matrix units (AMX) of the processor, for bf16 and for f32; see
//   ops/conv2d_engine.h. On processors without them nothing here is ever called.
// Read next: ops/conv2d_tiles.h, whose geometry (taps, pixel order, merged taps) this uses.
//
// Note [matrix units]
//   A tile register holds 16 rows of 64 bytes. One instruction multiplies 16 pixels x 32 channels of bf16 with 32 channels x
//   16 results and adds to 16x16 sums in f32: 16384 multiply-adds in 16 cycles. Eight registers allow 2x2 tiles of sums, so a
//   step over 32 channels (a chunk) loads four tiles and multiplies four times.
//   Both operands are laid out as whole tiles of 1 KiB: the weights once, the pixels when they are gathered, as a copy that stays
//   in the second-level cache while all results are computed from it.
// Note [f32 from bf16]
//   An f32 number is the sum of two bf16 numbers, hi + lo, up to 2^-17 of it. So x w = lo hi' + hi hi' + hi lo' up to about 2^-16,
//   three products with f32 sums at sixteen times the rate of f32 multiply-adds. The rounding errors of the terms of a sum are
//   independent: what remains is some 5e-6 of the largest result, as much as Winograd's method loses, and ten times what f32
//   multiply-adds lose. Infinite inputs become NaN. F32Math of ops/packed_conv2d.h chooses.
// Note [blocks]
//   A task computes a block of pixels x a range of results. Where the sum is too long for the gathered pixels to stay in cache
//   it is cut into parts, and the sums wait in memory between them. Large weights are read from memory once per block of pixels, so
//   blocks are large where weights are.
#include <algorithm>
#include <array>

#include "ops/conv2d_amx_pixels.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_tiles.h"
#include "ops/matrix_units.h"
#include "ops/pair_blocks.h"
#include "ops/simd.h"
#include "ops/task_queue.h"

#if defined(LIMBECK_AMX)
#include <sys/syscall.h>
#include <unistd.h>

namespace limbeck::ops {
namespace {

using namespace amx;

template <class T>
std::int64_t panel_offset(const WeightShape& w, std::int64_t p) {
  return p * w.chunks() * kParts<T> * 2 * kTileBytes;
}

/// [panel][chunk][part][tile][pair of channels][result][2]
template <class T>
void pack(const float* w, const WeightShape& shape, char* packed) {
  parallel_tasks(shape.panels() * shape.chunks(), [&](std::int64_t task) {
    const std::int64_t p = task / shape.chunks();
    const std::int64_t chunk = task % shape.chunks();
    const std::int64_t step = chunk / shape.step_chunks();
    const std::int64_t width = shape.width(p);
    auto* const out =
        reinterpret_cast<bfloat16*>(packed + panel_offset<T>(shape, p) + chunk * kParts<T> * width * kTileBytes);
    for (std::int64_t c = 0; c < width * kSide; ++c) {
      const std::int64_t filter = p * kColumns + c;
      for (std::int64_t k = 0; k < kChunk; ++k) {
        const std::int64_t channel = chunk % shape.step_chunks() * kChunk + k;
        const bool inside = filter < shape.filters && channel < shape.depth;
        const float value = inside ? w[(filter * shape.steps + step) * shape.depth + channel] : 0.0F;
        const bfloat16 high(value);
        const std::int64_t at = c / kSide * (kTileBytes / 2) + (k / 2 * kSide + c % kSide) * 2 + k % 2;
        out[at] = high;
        if constexpr (kParts<T> == 2) out[width * (kTileBytes / 2) + at] = bfloat16(value - static_cast<float>(high));
      }
    }
  });
}

// --- products -------------------------------------------------------------------------------------------------------

/// The sums in tiles 0 to 3 += the pixels in 4 and 5 x the weights in 6 and 7.
template <int RowTiles, int ColumnTiles>
[[gnu::always_inline]] inline void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (ColumnTiles > 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (RowTiles > 1) _tile_dpbf16ps(2, 5, 6);
  if constexpr (RowTiles > 1 && ColumnTiles > 1) _tile_dpbf16ps(3, 5, 7);
}

/// sums[row tile][column tile][16][16] = pixels x weights, or += where `resume`.
template <class T, int RowTiles, int ColumnTiles, bool InPlace = false>
[[gnu::noinline]] void multiply(const ReadyPair& ready, const char* weights, float* sums, bool resume) {
  begin_sums<RowTiles, ColumnTiles>(sums, resume);
  constexpr std::int64_t kPixelPart = 2 * kTileBytes;
  constexpr std::int64_t kWeightPart = ColumnTiles * kTileBytes;
  constexpr std::int64_t kStep = InPlace ? 64 : kParts<T> * kPixelPart;
  const std::int64_t row = InPlace ? ready.row_bytes : 64;
  const std::int64_t second = kTileSide * row;
  const char* a = ready.pixels;
  for (std::size_t s = 0; s < ready.stretch_count; ++s) {
    const char* b = weights + ready.stretches[s].first * kParts<T> * kWeightPart;
    const char* const end = b + ready.stretches[s].count * kParts<T> * kWeightPart;
    for (; b != end; a += kStep, b += kParts<T> * kWeightPart) {
      _tile_loadd(6, b, 64);
      if constexpr (ColumnTiles > 1) _tile_loadd(7, b + kTileBytes, 64);
      if constexpr (kParts<T> == 2) {  // the smallest products first
        _tile_loadd(4, a + kPixelPart, 64);
        if constexpr (RowTiles > 1) _tile_loadd(5, a + kPixelPart + kTileBytes, 64);
        add_products<RowTiles, ColumnTiles>();
      }
      _tile_loadd(4, a, row);
      if constexpr (RowTiles > 1) _tile_loadd(5, a + second, row);
      add_products<RowTiles, ColumnTiles>();
      if constexpr (kParts<T> == 2) {
        _tile_loadd(6, b + kWeightPart, 64);
        if constexpr (ColumnTiles > 1) _tile_loadd(7, b + kWeightPart + kTileBytes, 64);
        add_products<RowTiles, ColumnTiles>();
      }
    }
  }
  end_sums<RowTiles, ColumnTiles>(sums);
}

template <class T>
void multiply_pair(const ReadyPair& ready, std::int64_t rows, const char* weights, std::int64_t width, float* sums,
                   bool resume) {
  if (ready.row_bytes != 0) {
    width == 2 ? multiply<T, 2, 2, true>(ready, weights, sums, resume)
               : multiply<T, 2, 1, true>(ready, weights, sums, resume);
  } else if (rows > kSide) {
    width == 2 ? multiply<T, 2, 2>(ready, weights, sums, resume) : multiply<T, 2, 1>(ready, weights, sums, resume);
  } else {
    width == 2 ? multiply<T, 1, 2>(ready, weights, sums, resume) : multiply<T, 1, 1>(ready, weights, sums, resume);
  }
}

[[gnu::always_inline]] inline __m512 get(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
[[gnu::always_inline]] inline __m512 get(const bfloat16* p, __mmask16 mask) {
  return as_float(_mm256_maskz_loadu_epi16(mask, p));
}
[[gnu::always_inline]] inline void put(float* p, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(p, mask, v); }
[[gnu::always_inline]] inline void put(bfloat16* p, __mmask16 mask, __m512 v) {
  _mm256_mask_storeu_epi16(p, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

/// y = act(sums + bias + residual) for `rows` pixels of a pair and the results of panel p.
template <class Y, bool Residual, bool TwoTiles>
void finish_panel(const float* sums, const GatherPlan& plan, std::int64_t first_pixel, std::int64_t rows,
                  std::int64_t p, const ConvEpilogue& e, const TensorView& y) {
  const std::int64_t filters = y.c();
  const std::int64_t column = p * kColumns;
  constexpr std::int64_t kTiles = TwoTiles ? 2 : 1;
  std::array<__mmask16, kTiles> mask;
  __m512 bias[kTiles];
  for (std::int64_t j = 0; j < kTiles; ++j) {
    const auto at = static_cast<std::size_t>(j);
    mask[at] = simd::first_lanes(filters - column - j * kSide);
    bias[j] = e.bias.defined() ? get(e.bias.ptr<float>() + column + j * kSide, mask[at]) : __m512{};
  }
  const std::int32_t* const order = plan.order.empty() ? nullptr : plan.order.data() + first_pixel;
  const Activation act = e.act;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t pixel = order == nullptr ? first_pixel + i : order[i];
    const float* const row = sums + i / kSide * 512 + i % kSide * kSide;
    for (std::int64_t j = 0; j < kTiles; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const std::int64_t place = pixel * filters + column + j * kSide;
      __m512 v = _mm512_load_ps(row + j * 256) + bias[j];
      if constexpr (Residual) v += get(e.residual.ptr<Y>() + place, mask[at]);
      put(y.ptr<Y>() + place, mask[at], simd::activate(act, v));
    }
  }
}

template <class Y>
void finish(const float* sums, const GatherPlan& plan, std::int64_t first_pixel, std::int64_t rows, std::int64_t p,
            const ConvEpilogue& e, const TensorView& y) {
  const bool two = y.c() - p * kColumns > kSide;
  const auto run = e.residual.defined() ? (two ? finish_panel<Y, true, true> : finish_panel<Y, true, false>)
                                        : (two ? finish_panel<Y, false, true> : finish_panel<Y, false, false>);
  run(sums, plan, first_pixel, rows, p, e, y);
}

// --- one convolution ------------------------------------------------------------------------------------------------

template <class T, class Y>
void forward(const TensorView& x, const char* packed, const Shape& w_shape, const ConvEpilogue& epilogue,
             const Conv2dOptions& options, const TensorView& y) {
  const GatherPlan& plan = gather_plan(conv_geometry(x.shape, w_shape, y.shape, options, false));
  const WeightShape w(w_shape, options);
  const PixelGatherer<T> gatherer(plan, w, x.ptr<T>(), x.c(), x.numel() * static_cast<std::int64_t>(sizeof(T)));
  constexpr std::int64_t kPairChunk = kParts<T> * 2 * kTileBytes;
  const PairBlocks blocks({.pairs = (plan.pixels() + kRows - 1) / kRows,
                           .chunks = w.chunks(),
                           .panels = w.panels(),
                           .pair_bytes = w.chunks() * kPairChunk,
                           .chunk_bytes = kPairChunk});
  struct Memory {
    TileShapes shapes;
    Workspace pixels, sums;
    std::array<ReadyPair, PairBlocks::kMostPairs> ready;
    explicit Memory(const PairBlocks& b)
        : pixels(static_cast<std::size_t>(b.block * b.part * kPairChunk)),
          sums(static_cast<std::size_t>(b.kept * kSums * 4)) {}
  };
  blocks.run([&] { return Memory(blocks); },
             [&](Memory& memory, std::int64_t i, std::int64_t pair, std::int64_t first, std::int64_t last) {
               gatherer.gather(pair, first, last, memory.pixels.template as<char>() + i * blocks.part * kPairChunk,
                               memory.ready[static_cast<std::size_t>(i)]);
             },
             [&](Memory& memory, std::int64_t i, std::int64_t pair, std::int64_t p, std::int64_t at, std::int64_t k) {
               const std::int64_t pixel = pair * kRows;
               const std::int64_t rows = std::min(kRows, plan.pixels() - pixel);
               float* sums = memory.sums.template as<float>() + at * kSums;
               multiply_pair<T>(memory.ready[static_cast<std::size_t>(i)], rows, packed + panel_offset<T>(w, p),
                                w.width(p), sums, k > 0);
               if (k + 1 == blocks.parts) finish<Y>(sums, plan, pixel, rows, p, epilogue, y);
             });
}

}  // namespace

bool tiles_granted() noexcept {
  static const bool granted = [] {
    constexpr long kRequestPermission = 0x1023;
    constexpr long kTileData = 18;
    return has_matrix_units() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
}

bool amx_fits(const Shape& w, const Conv2dOptions& options) noexcept {
  return tiles_granted() && options.groups == 1 && w[2] * w[3] <= kMostSteps && (w[1] >= kSide || w[3] <= kChunk);
}

std::size_t amx_packed_bytes(const Shape& w, const Conv2dOptions& options, DType dtype) {
  return visit_fast_dtype("conv2d", dtype, [&](auto zero) {
    using T = decltype(zero);
    const WeightShape shape(w, options);
    const std::int64_t last = shape.panels() - 1;
    return static_cast<std::size_t>(panel_offset<T>(shape, last) +
                                    shape.chunks() * kParts<T> * shape.width(last) * kTileBytes);
  });
}

void amx_pack(const TensorView& w, const Conv2dOptions& options, DType dtype, void* packed) {
  visit_fast_dtype("conv2d", dtype, [&](auto zero) {
    pack<decltype(zero)>(w.ptr<float>(), WeightShape(w.shape, options), static_cast<char*>(packed));
  });
}

void amx_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                 const Conv2dOptions& options, const TensorView& y) {
  visit_fast_dtype("conv2d", x.dtype, [&](auto zero) {
    visit_fast_dtype("conv2d", y.dtype, [&](auto result) {
      forward<decltype(zero), decltype(result)>(x, static_cast<const char*>(packed), w, epilogue, options, y);
    });
  });
}

}  // namespace limbeck::ops

#else

namespace limbeck::ops {

bool tiles_granted() noexcept { return false; }
bool amx_fits(const Shape&, const Conv2dOptions&) noexcept { return false; }
std::size_t amx_packed_bytes(const Shape&, const Conv2dOptions&, DType) { return 0; }
void amx_pack(const TensorView&, const Conv2dOptions&, DType, void*) {}
void amx_forward(const TensorView&, const void*, const Shape&, const ConvEpilogue&, const Conv2dOptions&,
                 const TensorView&) {}

}  // namespace limbeck::ops

#endif
