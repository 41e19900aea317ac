// What this is: the tag by which a camera says how it was held (Exif, in JPEG files), and turning a picture by it.
// What it is not: part of reading data sets, whose masks are drawn on the stored pixels.
// Read next: image_io.h (read_photo).
#pragma once

#include <cstdint>
#include <span>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// 1 to 8 as in the Exif standard, 1: the first row is the top; 1 also for a file that is no JPEG, does not say, or says nonsense.
[[nodiscard]] int orientation_of(std::span<const std::uint8_t> file) noexcept;

/// The picture as it is meant to be seen.
/// Throws: Error for an orientation other than 1 to 8.
[[nodiscard]] Image upright(Image stored, int orientation);

}  // namespace limbeck::datasets
