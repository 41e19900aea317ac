// What this is: limbeck's own dense convolution on the CPU: forward and data gradient as one gather-multiply, the weight
//   gradient as a product of two gathered panels. Works on dense channels-last maps, one channel group at a time.
// What it is not: the choice between these kernels and oneDNN (ops/conv2d_cpu.cpp).
// Read next: ops/tile_gemm.h for the arithmetic, ops/conv2d_tiles.cpp.
//
// Note [gather]
//   A convolution is a matrix product whose left operand has one row per result pixel: the channels of the pixels its
//   taps read, one after the other. Up to kRows result pixels form a tile and are multiplied with packed weights.
//   Neighbours within a map row see the same taps at evenly spaced pixels, so the kernel reads them where they are (a
//   run). Other tiles are copied together first, with zeros where a tap falls outside.
//   Forward and data gradient differ only in which pixel a tap reads.
// Note [pixel order]
//   A tap that reads outside for the whole tile is skipped. So that this happens often, result pixels are visited sorted
//   by the set of taps they see. A 3x3 kernel with dilation 12 on a 16x16 map then needs a quarter of the nominal work,
//   one with dilation 18 a ninth; and the data gradient of a strided convolution multiplies no zeros.
// Note [merged taps]
//   A first layer sees 3 channels: per tap there is almost nothing to sum, but the taps of one kernel row lie side by side
//   in channels-last memory. So with few channels a kernel row counts as one tap of KW * I channels. In bf16 that number
//   is rounded up (Note [pairs] of ops/tile_gemm.h): the extra value is the neighbour's, its weight is zero.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/tile_gemm.h"

namespace limbeck::ops {

/// Which source pixel each tap of each result pixel reads. Plain data, so that plans can be cached by it.
/// Shapes:   result map [images, height, width], source map [images, source_height, source_width]
struct GatherGeometry {
  std::int64_t images, height, width, source_height, source_width;
  std::array<std::int64_t, 2> kernel, stride, padding, dilation;
  /// false: source = result * stride - padding + tap * dilation (forward);
  /// true:  result = source * stride - padding + tap * dilation (data gradient).
  std::int64_t transposed;
};

/// Result pixels that are computed together: entries first .. first+rows-1 of GatherPlan::order.
/// Shapes:   none
struct TileSpan {
  std::int32_t first;
  std::int16_t rows;
  std::int16_t run;  ///< not 0: evenly spaced neighbours that see the same taps, see Note [gather]
};

/// Tables derived from a GatherGeometry.
/// Shapes:   none
struct GatherPlan {
  GatherGeometry geometry{};
  std::vector<std::int32_t> source_row;  ///< [kernel row][result row], -1 outside
  std::vector<std::int32_t> source_column;
  std::vector<std::int32_t> order;  ///< result pixels in the order of visits; empty: natural
  std::vector<TileSpan> tiles;      ///< empty if one_tap
  bool one_tap = false;             ///< row m of the operand is simply source pixel m

  explicit GatherPlan(const GatherGeometry& g);
  [[nodiscard]] std::int64_t pixels() const { return geometry.images * geometry.height * geometry.width; }
  [[nodiscard]] std::int64_t tile_count() const;
  [[nodiscard]] TileSpan tile(std::int64_t t) const;
  [[nodiscard]] std::int64_t pixel(std::int64_t i) const {
    return order.empty() ? i : order[static_cast<std::size_t>(i)];
  }

  /// A result pixel.
  struct Position {
    std::int64_t image, row, column;  ///< image: first source row of the image
  };
  [[nodiscard]] Position position(std::int64_t pixel) const {
    const std::int64_t line = pixel / geometry.width;
    return {line / geometry.height * geometry.source_height, line % geometry.height, pixel % geometry.width};
  }
  /// Offset of the source pixel that `tap` reads, in a map of `stride` numbers per pixel, or -1.
  [[nodiscard]] std::int64_t source(const Position& p, std::int64_t tap, std::int64_t stride) const {
    const std::int64_t r = source_row[static_cast<std::size_t>(tap / geometry.kernel[1] * geometry.height + p.row)];
    const std::int64_t c =
        source_column[static_cast<std::size_t>(tap % geometry.kernel[1] * geometry.width + p.column)];
    return r < 0 || c < 0 ? -1 : ((p.image + r) * geometry.source_width + c) * stride;
  }
};

/// The plan of `g`, cached per thread.
/// Shapes:   none
[[nodiscard]] const GatherPlan& gather_plan(GatherGeometry g);

/// True if the taps of a kernel row are merged, see Note [merged taps]; `depth` is the number of summed channels.
/// Shapes:   none
[[nodiscard]] bool merges_taps(const GatherGeometry& g, std::int64_t depth);

/// Geometry of the forward pass or, with `transposed`, of the data gradient.
/// Shapes:   x [N,I,H,W]; w [O,I/G,KH,KW]; y [N,O,OH,OW]
[[nodiscard]] GatherGeometry conv_geometry(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& options,
                                           bool transposed);

/// Number of T values that pack_weights writes for a kernel of `taps` taps, `depth` summed channels and `columns` results.
/// Shapes:   none
template <class T>
[[nodiscard]] std::int64_t packed_weights_size(std::int64_t taps, std::int64_t depth, std::int64_t columns) {
  return taps * tile::round_up_pair<T>(depth) * tile::Panels{columns}.padded();
}

/// For merged taps pass the kernel rows as taps and KW * channels as channels: the memory is the same.
/// Packs weights stored as [filters][taps][channels] into panels (Note [panels] of ops/tile_gemm.h), k = (tap, depth).
/// Forward: depth = channels, columns = filters. Transposed: depth = filters, columns = channels.
/// Shapes:   w f32 [filters, taps, channels]; packed [packed_weights_size]
template <class T>
void pack_weights(const float* w, std::int64_t filters, std::int64_t taps, std::int64_t channels, bool transposed,
                  T* packed);

/// Arguments of gather_multiply; T is float or bfloat16.
/// Shapes:   source [images, source_height, source_width, source_pixel >= depth]; result and residual
///           [images, height, width, result_pixel >= columns]; bias [columns]
template <class T>
struct GatherMultiply {
  const T* source;
  std::int64_t source_pixel;  ///< distance of neighbouring pixels
  std::int64_t depth;         ///< channels that are summed over
  const T* packed;            ///< of pack_weights
  std::int64_t columns;
  T* result;
  std::int64_t result_pixel;
  const float* bias = nullptr;
  const T* residual = nullptr;
  Activation act = Activation::kNone;
};

/// result = act(bias + sum over taps and depth of source * weights + residual).
/// Shapes:   as GatherMultiply
template <class T>
void gather_multiply(const GatherPlan& plan, const GatherMultiply<T>& job);

/// gw[filter][tap][channel] = sum over result pixels of gy[pixel][filter] * x[source of (pixel, tap)][channel].
/// Shapes:   x [images, source_height, source_width, x_pixel]; gy [images, height, width, gy_pixel];
///           gw [filters, taps, channels]
template <class T>
void gather_weights(const GatherPlan& plan, const T* x, std::int64_t x_pixel, std::int64_t channels, const T* gy,
                    std::int64_t gy_pixel, std::int64_t filters, float* gw);

}  // namespace limbeck::ops
