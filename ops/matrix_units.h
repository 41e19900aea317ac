// What this is: what kernels on the matrix units (AMX) share: the permission to use them and the shape of their registers. Include it
//   inside LIMBECK_AMX only: elsewhere there are no such instructions.
// What it is not: the products; those are in conv2d_amx.cpp, conv2d_i8_amx.cpp and bf16_channels.cpp, whose notes say what a tile is.
#pragma once

#include <cstdint>

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define LIMBECK_AMX 1
#include <immintrin.h>
#endif

namespace limbeck::ops {

/// True where the processor has matrix units and the system has granted this process their registers, which are large to save and
/// handed out on request only.
/// Shapes:   none
[[nodiscard]] bool tiles_granted() noexcept;  // conv2d_amx.cpp

#if defined(LIMBECK_AMX)

inline constexpr std::int64_t kTileSide = 16;     ///< rows of a tile, and columns of sums
inline constexpr std::int64_t kTileBytes = 1024;  ///< 16 rows of 64 bytes

/// All eight registers of this thread hold whole tiles, until _tile_release().
/// Shapes:   none
inline void load_tile_shapes() noexcept {
  struct alignas(64) Config {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
  } config;
  for (int t = 0; t < 8; ++t) {
    config.bytes[t] = 64;
    config.rows[t] = kTileSide;
  }
  asm volatile("" : : "r"(&config) : "memory");  // all of it is read; the compiler knows of its first bytes only
  _tile_loadconfig(&config);
}

/// What the tile registers hold; the registers are the thread's, so the shape is set for as long as a task list runs.
class TileShapes {
 public:
  TileShapes() { load_tile_shapes(); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
  ~TileShapes() { _tile_release(); }
};

/// Registers 0 to 3 become the sums [row tile][column tile][16][16] of 32-bit numbers, or zeros where they do not `resume`. Pixels then
/// go through 4 and 5, weights through 6 and 7.
/// Shapes:   as described
template <int RowTiles, int ColumnTiles>
[[gnu::always_inline]] inline void begin_sums(const void* sums, bool resume) {
  asm volatile("" ::: "memory");  // tile loads are not known to the compiler as reads of memory
  const char* const at = static_cast<const char*>(sums);
  if (resume) {
    _tile_loadd(0, at, 64);
    if constexpr (ColumnTiles > 1) _tile_loadd(1, at + kTileBytes, 64);
    if constexpr (RowTiles > 1) _tile_loadd(2, at + 2 * kTileBytes, 64);
    if constexpr (RowTiles > 1 && ColumnTiles > 1) _tile_loadd(3, at + 3 * kTileBytes, 64);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
}

/// The way back.
/// Shapes:   as begin_sums
template <int RowTiles, int ColumnTiles>
[[gnu::always_inline]] inline void end_sums(void* sums) {
  char* const at = static_cast<char*>(sums);
  _tile_stored(0, at, 64);
  if constexpr (ColumnTiles > 1) _tile_stored(1, at + kTileBytes, 64);
  if constexpr (RowTiles > 1) _tile_stored(2, at + 2 * kTileBytes, 64);
  if constexpr (RowTiles > 1 && ColumnTiles > 1) _tile_stored(3, at + 3 * kTileBytes, 64);
  asm volatile("" ::: "memory");
}

#endif

}  // namespace limbeck::ops
