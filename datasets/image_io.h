// What this is: RGB pictures from and to PNG and JPEG files.
// What it is not: masks, whose numbers are ids and must not be converted: mask_io.h.
// Read next: mask_io.h, compose.h (overlays, captions).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Reads a PNG or JPEG file as RGB. Grey becomes R = G = B, palettes are expanded, 16 bits are cut to 8, alpha is
/// dropped. Orientation tags of cameras are not applied (masks are drawn on the stored pixels); see read_photo().
/// Throws: DataError naming the file when it is missing, of another type, damaged, ends too early, or promises more pixels than a file
///   of its size can hold or than 2^28.
[[nodiscard]] Image read_image(const std::filesystem::path& path);

/// The same, turned upright as the camera's orientation tag asks (orientation.h): for pictures without masks.
[[nodiscard]] Image read_photo(const std::filesystem::path& path);

/// read_image() for a file in memory; `where` names it in errors.
[[nodiscard]] Image decode_image(std::span<const std::uint8_t> file, const std::string& where);

/// Writes `.png`, `.jpg` or `.jpeg`, chosen by the name. `quality` 1..100 is for JPEG.
/// Throws: DataError for another suffix or an empty picture; Error when the file cannot be written.
void write_image(const std::filesystem::path& path, const Image& image, int quality = 92);

/// PNG file in memory, for pictures inside reports and event files.
[[nodiscard]] std::vector<std::uint8_t> encode_png(const Image& image);

/// All pictures (.png, .jpg, .jpeg) below a folder, sorted by path. Links are followed, but not in circles.
/// Throws: DataError naming a folder that is none or cannot be listed.
[[nodiscard]] std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder);

/// True for the suffixes .png, .jpg and .jpeg in any case.
[[nodiscard]] bool has_image_suffix(const std::filesystem::path& path);

}  // namespace limbeck::datasets
