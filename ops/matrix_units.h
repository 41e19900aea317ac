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

#endif

}  // namespace limbeck::ops
