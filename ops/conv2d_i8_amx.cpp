// What this is: the products of int8 convolutions on the matrix units (AMX) of the processor: one instruction multiplies 16 pixels x 64
//   channels with 64 channels x 16 filters and adds to 16x16 sums in i32, exactly: twice the products of bf16 in the same time.
// What it is not: everything around them (ops/conv2d_i8_cpu.cpp). On processors without such units nothing here is ever called.
// Read next: ops/conv2d_amx.cpp, the same in bf16.
#include "ops/conv2d_i8_kernels.h"
#include "ops/matrix_units.h"

#if defined(LIMBECK_AMX) && defined(__AMX_INT8__)

namespace limbeck::ops::i8 {
namespace {

template <int RowTiles, int ColumnTiles>
[[gnu::noinline]] void multiply(const PixelPair& pair, const std::int8_t* weights, std::int32_t* sums, bool resume) {
  begin_sums<RowTiles, ColumnTiles>(sums, resume);
  const std::int64_t stride = pair.stride;
  const std::uint8_t* a = pair.pixels;
  const std::uint8_t* a_low = a + kSide * stride;
  for (std::size_t s = 0; s < pair.stretch_count; ++s) {
    const std::int8_t* b = weights + pair.stretches[s].first * ColumnTiles * kTileBytes;
    const std::int8_t* const end = b + pair.stretches[s].count * ColumnTiles * kTileBytes;
    for (; b != end; a += kChunk, a_low += kChunk, b += ColumnTiles * kTileBytes) {
      _tile_loadd(6, b, 64);
      _tile_loadd(4, a, stride);
      _tile_dpbusd(0, 4, 6);
      if constexpr (ColumnTiles > 1) _tile_loadd(7, b + kTileBytes, 64);
      if constexpr (ColumnTiles > 1) _tile_dpbusd(1, 4, 7);
      if constexpr (RowTiles > 1) _tile_loadd(5, a_low, stride);
      if constexpr (RowTiles > 1) _tile_dpbusd(2, 5, 6);
      if constexpr (RowTiles > 1 && ColumnTiles > 1) _tile_dpbusd(3, 5, 7);
    }
  }
  end_sums<RowTiles, ColumnTiles>(sums);
}

}  // namespace

void multiply_amx(const PixelPair& pair, std::int64_t rows, const std::int8_t* weights, std::int64_t width,
                  std::int32_t* sums, bool resume) {
  if (rows > kSide) {
    width == 2 ? multiply<2, 2>(pair, weights, sums, resume) : multiply<2, 1>(pair, weights, sums, resume);
  } else {
    width == 2 ? multiply<1, 2>(pair, weights, sums, resume) : multiply<1, 1>(pair, weights, sums, resume);
  }
}

bool has_amx() noexcept { return tiles_granted(); }

TileScope::TileScope(bool use) noexcept : use_(use) {
  if (use_) load_tile_shapes();
}

TileScope::~TileScope() {
  if (use_) _tile_release();
}

}  // namespace limbeck::ops::i8

#else

namespace limbeck::ops::i8 {

void multiply_amx(const PixelPair&, std::int64_t, const std::int8_t*, std::int64_t, std::int32_t*, bool) {}
bool has_amx() noexcept { return false; }
TileScope::TileScope(bool) noexcept : use_(false) {}
TileScope::~TileScope() { static_cast<void>(use_); }

}  // namespace limbeck::ops::i8

#endif
