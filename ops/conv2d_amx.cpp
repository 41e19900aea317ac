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
#include "ops/conv2d_amx_products.h"
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
               const std::int64_t rows = std::min(kRows, plan.pixels() - pair * kRows);
               gatherer.gather(pair * kRows, rows, first, last,
                               memory.pixels.template as<char>() + i * blocks.part * kPairChunk,
                               memory.ready[static_cast<std::size_t>(i)]);
             },
             [&](Memory& memory, std::int64_t i, std::int64_t pair, std::int64_t p, std::int64_t at, std::int64_t k) {
               const std::int64_t pixel = pair * kRows;
               const std::int64_t rows = std::min(kRows, plan.pixels() - pixel);
               float* sums = memory.sums.template as<float>() + at * kSums;
               multiply_pair<T>(memory.ready[static_cast<std::size_t>(i)], rows, packed + panel_offset<T>(w, p),
                                w.width(p), sums, k > 0);
               const std::int32_t* order = plan.order.empty() ? nullptr : plan.order.data() + pixel;
               if (k + 1 == blocks.parts) finish<Y>(sums, order, pixel, rows, p, epilogue, y);
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

bool amx_in_one_chunk(const Shape& w, const Conv2dOptions& options) noexcept {
  return amx_fits(w, options) && WeightShape(w, options).chunks() == 1;
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
bool amx_in_one_chunk(const Shape&, const Conv2dOptions&) noexcept { return false; }
std::size_t amx_packed_bytes(const Shape&, const Conv2dOptions&, DType) { return 0; }
void amx_pack(const TensorView&, const Conv2dOptions&, DType, void*) {}
void amx_forward(const TensorView&, const void*, const Shape&, const ConvEpilogue&, const Conv2dOptions&,
                 const TensorView&) {}

}  // namespace limbeck::ops

#endif
