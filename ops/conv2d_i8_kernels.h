// What this is: int8 convolutions as their kernels see them, and the float arithmetic at the end, which all kernels share.
// Read next: ops/packed_conv2d_i8.h, Note [int8 arithmetic].
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/tensor.h"
#include "ops/conv2d.h"
#include "ops/quantise.h"

namespace limbeck::ops {

/// From a sum to a result, in steps of the result.
/// Shapes:   multiplier, bias [O]
struct ResultI8 {
  const float* multiplier;
  const float* bias;
  float residual_scale;  ///< s_r / s_y
  std::int32_t residual_zero;
  float low, high;  ///< activation, and for u8 results the ends of their range
  std::int32_t zero;

  /// Formula:  see Note [int8 arithmetic]
  /// Shapes:   one result of filter o
  [[nodiscard]] float value(std::int32_t sum, std::int64_t o) const noexcept {
    return std::fma(static_cast<float>(sum), multiplier[o], bias[o]);
  }
  [[nodiscard]] float add_residual(float t, std::uint8_t r) const noexcept {
    return std::fma(static_cast<float>(static_cast<std::int32_t>(r) - residual_zero), residual_scale, t);
  }
  [[nodiscard]] float clamp(float t) const noexcept {
    const float above = t > low ? t : low;
    return above < high ? above : high;
  }
  void store(float t, float& y) const noexcept { y = clamp(t); }
  void store(float t, std::uint8_t& y) const noexcept { y = static_cast<std::uint8_t>(round_to_even(clamp(t)) + zero); }
};

/// One convolution.
/// Shapes:   x u8 [N,I,H,W]; residual u8 as y, or undefined; y u8 or f32 [N,O,OH,OW]; w [O,I/G,KH,KW]; all maps dense
struct ConvI8 {
  TensorView x, residual, y;
  Shape w;
  Conv2dOptions options;
  std::int32_t x_zero;
  ResultI8 result;
};

/// Plain loops.
/// Shapes:   weights [O][KH][KW][I/G]
void conv2d_i8_ref(const ConvI8& job, const std::int8_t* weights);

/// Bytes that conv2d_i8_pack() writes.
/// Shapes:   w [O,I/G,KH,KW]
[[nodiscard]] std::size_t conv2d_i8_packed_bytes(const Shape& w, const Conv2dOptions& options);
/// Shapes:   weights as conv2d_i8_ref; packed [conv2d_i8_packed_bytes]
void conv2d_i8_pack(const std::int8_t* weights, const Shape& w, const Conv2dOptions& options, void* packed);
/// Dense and grouped convolutions.
/// Shapes:   packed as conv2d_i8_pack
void conv2d_i8_cpu(const ConvI8& job, const void* packed);

/// The same for depthwise ones, of 256 taps at most.
/// Shapes:   as above
[[nodiscard]] bool depthwise_i8_fits(const Shape& w) noexcept;
[[nodiscard]] std::size_t depthwise_i8_packed_bytes(const Shape& w);
void depthwise_i8_pack(const std::int8_t* weights, const Shape& w, void* packed);
void depthwise_i8_cpu(const ConvI8& job, const void* packed);

// --- products -------------------------------------------------------------------------------------------------------

/// The kernels work on tiles of 16 rows of 64 bytes, in pairs: 32 pixels, and a panel of 32 filters; see ops/conv2d_i8_cpu.cpp.
/// Shapes:   none
namespace i8 {

inline constexpr std::int64_t kSide = 16;
inline constexpr std::int64_t kChunk = 64;  // channels of a step
inline constexpr std::int64_t kTileBytes = 1024;
inline constexpr std::int64_t kRows = 2 * kSide;
inline constexpr std::int64_t kColumns = 2 * kSide;
inline constexpr std::int64_t kSums = kRows * kColumns;
inline constexpr std::int64_t kMostSteps = 64;  // of a kernel

/// Chunks that lie together in the pixels and in the weights.
/// Shapes:   none
struct Stretch {
  std::int64_t first, count;  ///< chunks of the weights
};

/// 32 pixels, ready to be multiplied: row i at pixels + i * stride, the chunks of all stretches one after the other.
/// Shapes:   none
struct PixelPair {
  const std::uint8_t* pixels = nullptr;
  std::int64_t stride = 0;
  std::array<Stretch, kMostSteps> stretches{};
  std::size_t stretch_count = 0;
};

/// sums[row tile][column tile][16][16] = pixels x weights, or += where `resume`. `rows` up to 32 pixels count; `width` column tiles.
/// Shapes:   weights [chunk][width][16][16][4]
using MultiplyFn = void(const PixelPair& pair, std::int64_t rows, const std::int8_t* weights, std::int64_t width,
                        std::int32_t* sums, bool resume);
void multiply_loops(const PixelPair& pair, std::int64_t rows, const std::int8_t* weights, std::int64_t width,
                    std::int32_t* sums, bool resume);
void multiply_amx(const PixelPair& pair, std::int64_t rows, const std::int8_t* weights, std::int64_t width,
                  std::int32_t* sums, bool resume);

/// True if this processor and this build have 8-bit matrix units.
/// Shapes:   none
[[nodiscard]] bool has_amx() noexcept;

/// While alive, the tile registers of this thread have the shapes that multiply_amx wants; nothing where `use` is false.
/// Shapes:   none
class TileScope {
 public:
  explicit TileScope(bool use) noexcept;
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  ~TileScope();

 private:
  bool use_;
};

}  // namespace i8
}  // namespace limbeck::ops
