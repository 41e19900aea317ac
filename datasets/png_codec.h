// What this is: PNG files in and out of memory, on top of libspng; private to image_io.cpp and mask_io.cpp.
// Why not stb_image: it expands palettes and 1/2/4-bit samples to RGB, does not check CRCs, and accepts files that end
//   early. A mask needs its indices, and a damaged file must be an error.
// Read next: mask_io.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Values are those of the PNG standard.
enum class PngColour : std::uint8_t { kGrey = 0, kRgb = 2, kPalette = 3, kGreyAlpha = 4, kRgba = 6 };

struct PngPicture {
  std::int64_t h = 0, w = 0;
  PngColour colour = PngColour::kGrey;
  int bit_depth = 8;
  std::vector<Rgb> palette;  ///< kPalette only
  /// RGB bytes (png_decode_rgb), or samples as stored with rows packed to whole bytes and 16-bit samples in the
  /// machine's byte order (png_decode_raw, png_encode).
  std::vector<std::uint8_t> bytes;
  [[nodiscard]] std::size_t row_bytes() const;
};

[[nodiscard]] bool is_png(std::span<const std::uint8_t> file) noexcept;

/// Decodes to 8-bit RGB whatever the file holds; alpha is dropped. Throws DataError naming `where` if damaged.
[[nodiscard]] PngPicture png_decode_rgb(std::span<const std::uint8_t> file, const std::string& where);
/// Decodes to the samples as they are stored. Throws DataError naming `where` if damaged.
[[nodiscard]] PngPicture png_decode_raw(std::span<const std::uint8_t> file, const std::string& where);
/// Returns the file. Throws DataError naming `where` when the picture is inconsistent.
[[nodiscard]] std::vector<std::uint8_t> png_encode(const PngPicture& picture, const std::string& where);

/// A whole file; DataError naming the path when it cannot be read or is empty.
[[nodiscard]] std::string read_data_file(const std::filesystem::path& path);
/// Writes a file, atomically but without waiting for the disk (core/file_io.h).
void write_data_file(const std::filesystem::path& path, std::span<const std::uint8_t> bytes);
[[nodiscard]] inline std::span<const std::uint8_t> bytes_of(const std::string& file) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(file.data()), file.size()};
}

/// Pictures beyond this many pixels are refused.
inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

/// Throws DataError unless w x h pixels are supported, and a file of `file_bytes` can hold them at `most_per_byte`, the most that the
/// format allows: a damaged header must not ask for memory that no picture will fill.
void check_picture_size(const char* format, const std::string& where, std::int64_t w, std::int64_t h,
                        double most_per_byte, std::size_t file_bytes);

}  // namespace limbeck::datasets
