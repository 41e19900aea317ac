// What this is: resizing pictures (bilinear) and masks (nearest) on pixel centres, whole or only a window of the result.
// What it is not: the differentiable resize of feature maps (ops/interpolate.h).
// Read next: transforms.h.
//
// Note [pixel centres]
//   Output pixel s of a picture resized from `in` to `out` pixels looks at (s + 0.5) * in / out - 0.5. Masks use the
//   source pixel that contains (s + 0.5) * in / out, so picture and mask stay aligned to within half a source pixel.
//   When a picture shrinks, the bilinear weights are widened to the size of an output pixel, which keeps thin poles
//   from vanishing and avoids moire.
#pragma once

#include <cstdint>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Window [first, first + count) of an axis that is resized from `in` to `out` pixels: for each output pixel the first
/// source pixel and `taps` weights that sum to 1.
struct ResampleAxis {
  std::int64_t taps = 1;
  std::vector<std::int64_t> start;  ///< per output pixel; start + taps <= in
  std::vector<float> weights;       ///< per output pixel, `taps` each
  ResampleAxis(std::int64_t in, std::int64_t out, std::int64_t first, std::int64_t count);
};

/// Writes the window as floats 0..255: row y, pixel x, channel c at target[y * row_stride + x * 3 + c].
void resample_image(const Image& image, const ResampleAxis& rows, const ResampleAxis& columns, float* target,
                    std::int64_t row_stride);

/// Source index of each pixel of the window for nearest-neighbour resizing.
[[nodiscard]] std::vector<std::int64_t> nearest_indices(std::int64_t in, std::int64_t out, std::int64_t first,
                                                        std::int64_t count);

/// The whole picture at another size. Throws Error when a size is not positive.
[[nodiscard]] Image resize(const Image& image, std::int64_t h, std::int64_t w);
/// The whole mask at another size; ids are picked, never mixed. Throws Error when a size is not positive.
[[nodiscard]] Mask resize(const Mask& mask, std::int64_t h, std::int64_t w);

}  // namespace limbeck::datasets
