// JPEG by stb_image and stb_image_write, PNG by png_codec.cpp. The two stb headers are compiled here and nowhere else.
#include "datasets/image_io.h"

#include <cstdlib>

#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
// It decodes with tables and coefficients that a damaged file never defines: these must be zeros, not what was in memory.
#define STBI_MALLOC(bytes) std::calloc(1, bytes)
#define STBI_REALLOC(p, bytes) std::realloc(p, bytes)
#define STBI_FREE(p) std::free(p)
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb_image.h>
#include <stb_image_write.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <array>
#include <cctype>
#include <climits>
#include <memory>
#include <numeric>
#include <set>
#include <system_error>

#include "core/error.h"
#include "datasets/orientation.h"
#include "datasets/png_codec.h"

namespace limbeck::datasets {
namespace {

std::string lower_suffix(const std::filesystem::path& path) {
  std::string s = path.extension().string();
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

bool is_jpeg(std::span<const std::uint8_t> f) noexcept { return f.size() >= 3 && f[0] == 0xFF && f[1] == 0xD8; }

/// What the markers of a JPEG file say before anything is decoded.
struct JpegMarkers {
  bool complete = false;     ///< the marker "end of image" follows compressed data
  bool tables_fit = true;    ///< so that stb_image, which trusts their counts, does not write beyond its own
  bool tables_there = true;  ///< every scan finds its Huffman tables in front of it
  std::size_t scans = 0;
};

/// Which Huffman tables there are: a bit per place, for DC and AC.
using HuffmanPlaces = std::array<unsigned, 2>;

/// The Huffman tables of one segment: class and place, 16 counts, as many values; a table has at most 256.
bool huffman_tables_fit(std::span<const std::uint8_t> segment, HuffmanPlaces& places) noexcept {
  while (!segment.empty()) {
    if (segment.size() < 17) return false;
    const std::size_t values = std::accumulate(segment.begin() + 1, segment.begin() + 17, std::size_t{0});
    if (values > 256 || values > segment.size() - 17) return false;
    places[segment[0] >> 4U & 1U] |= 1U << (segment[0] & 3U);
    segment = segment.subspan(17 + values);
  }
  return true;
}

/// The header of a scan: its components with the places of their tables, first and last coefficient, bits. A progressive scan holds
/// either DC or AC coefficients, and finer bits of DC are not compressed.
bool scan_finds_tables(std::span<const std::uint8_t> header, bool progressive, const HuffmanPlaces& places) noexcept {
  const std::size_t components = header.empty() ? 0 : header[0];
  if (header.size() < 4 + 2 * components) return false;
  const bool from_dc = header[1 + 2 * components] == 0, finer = header[3 + 2 * components] >> 4U != 0;
  const bool dc = !progressive || (from_dc && !finer), ac = !progressive || !from_dc;
  for (std::size_t k = 0; k < components; ++k) {
    const unsigned tables = header[2 + 2 * k];
    if (dc && (places[0] >> (tables >> 4U & 3U) & 1U) == 0) return false;
    if (ac && (places[1] >> (tables & 3U) & 1U) == 0) return false;
  }
  return true;
}

/// stb_image paints the rest of a cut file grey and reports success, so the check for the end is ours. Segments are skipped by
/// their length: an embedded thumbnail has an end marker of its own. Compressed data holds no marker but restarts.
JpegMarkers jpeg_markers(std::span<const std::uint8_t> f) noexcept {
  JpegMarkers found;
  HuffmanPlaces places{};
  bool progressive = false;
  std::size_t i = 2;
  while (i + 1 < f.size()) {
    const std::uint8_t marker = f[i + 1];
    const bool stuffed = marker == 0x00 || (marker >= 0xD0 && marker <= 0xD7);
    if (f[i] != 0xFF || stuffed || marker == 0xFF) {
      if (found.scans == 0 && marker != 0xFF)
        return found;  // before the first scan there are only segments and fill bytes
      ++i;
      continue;
    }
    if (marker == 0xD9) {
      found.complete = found.scans > 0;
      return found;
    }
    if (i + 4 > f.size()) return found;
    const std::size_t length = (static_cast<std::size_t>(f[i + 2]) << 8U) | f[i + 3];
    const bool whole = length >= 2 && length <= f.size() - i - 2;
    const auto segment = whole ? f.subspan(i + 4, length - 2) : std::span<const std::uint8_t>{};
    if (marker == 0xC2) progressive = true;
    if (marker == 0xDA) {
      ++found.scans;
      found.tables_there = found.tables_there && scan_finds_tables(segment, progressive, places);
    }
    if (marker == 0xC4 && (!whole || !huffman_tables_fit(segment, places))) found.tables_fit = false;
    i += 2 + length;
  }
  return found;
}

// A block of 64 pixels needs at least one bit, in the first scan of a progressive file. Encoders write about ten scans; each
// costs a pass over all blocks, whether it holds data or not.
constexpr double kMostPixelsPerByte = 512;
constexpr std::size_t kMostScans = 100;

Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where) {
  if (file.size() > static_cast<std::size_t>(INT_MAX)) fail<DataError>("jpeg", "{}: larger than 2 GiB", where);
  const JpegMarkers markers = jpeg_markers(file);
  if (!markers.complete) {
    fail<DataError>("jpeg", "{}: the file ends too early (no end-of-image marker); copy or download it again", where);
  }
  if (!markers.tables_fit) {
    fail<DataError>(
        "jpeg", "{}: the file is damaged (a Huffman table with more than 256 values, or cut off); re-save it", where);
  }
  if (markers.scans > kMostScans) {
    fail<DataError>("jpeg", "{}: {} scans, expected at most {}; re-save it", where, markers.scans, kMostScans);
  }
  int w = 0;
  int h = 0;
  int channels = 0;
  if (stbi_info_from_memory(file.data(), static_cast<int>(file.size()), &w, &h, &channels) == 0) {
    fail<DataError>("jpeg", "{}: the file is damaged ({}); re-save it", where, stbi_failure_reason());
  }
  check_picture_size("jpeg", where, w, h, kMostPixelsPerByte, file.size());
  if (!markers.tables_there) {
    fail<DataError>("jpeg", "{}: the file is damaged (a scan without its Huffman tables); re-save it", where);
  }
  const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
      stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &w, &h, &channels, 3), stbi_image_free);
  if (!pixels) fail<DataError>("jpeg", "{}: the file is damaged ({}); re-save it", where, stbi_failure_reason());
  Image image;
  image.h = h;
  image.w = w;
  image.rgb.assign(pixels.get(), pixels.get() + image.h * image.w * 3);
  return image;
}

void check_image(const Image& image, const std::string& where) {
  if (image.h <= 0 || image.w <= 0 || image.rgb.size() != static_cast<std::size_t>(image.h * image.w * 3)) {
    fail<DataError>("image", "{}: a picture of {}x{} pixels with {} bytes cannot be written", where, image.w, image.h,
                    image.rgb.size());
  }
}

std::vector<std::uint8_t> encode_png(const Image& image, const std::string& where) {
  check_image(image, where);
  return png_encode({image.h, image.w, PngColour::kRgb, 8, {}, image.rgb}, where);
}

}  // namespace

Image decode_image(std::span<const std::uint8_t> file, const std::string& where) {
  if (is_jpeg(file)) return decode_jpeg(file, where);
  if (!is_png(file)) fail<DataError>("image", "{}: is neither PNG nor JPEG; convert it", where);
  PngPicture png = png_decode_rgb(file, where);
  Image image;
  image.h = png.h;
  image.w = png.w;
  image.rgb = std::move(png.bytes);
  return image;
}

Image read_image(const std::filesystem::path& path) {
  const std::string file = read_data_file(path);
  return decode_image(bytes_of(file), path.string());
}

Image read_photo(const std::filesystem::path& path) {
  const std::string file = read_data_file(path);
  return upright(decode_image(bytes_of(file), path.string()), orientation_of(bytes_of(file)));
}

std::vector<std::uint8_t> encode_png(const Image& image) { return encode_png(image, "picture"); }

void write_image(const std::filesystem::path& path, const Image& image, int quality) {
  const std::string suffix = lower_suffix(path);
  if (suffix == ".png") {
    write_data_file(path, encode_png(image, path.string()));
    return;
  }
  if (suffix != ".jpg" && suffix != ".jpeg") {
    fail<DataError>("image", "{}: suffix '{}' is not supported, expected .png, .jpg or .jpeg", path.string(), suffix);
  }
  check_image(image, path.string());
  std::vector<std::uint8_t> bytes;
  const auto append = [](void* context, void* data, int size) {
    auto* out = static_cast<std::vector<std::uint8_t>*>(context);
    const auto* first = static_cast<const std::uint8_t*>(data);
    out->insert(out->end(), first, first + size);
  };
  if (stbi_write_jpg_to_func(append, &bytes, static_cast<int>(image.w), static_cast<int>(image.h), 3, image.rgb.data(),
                             std::clamp(quality, 1, 100)) == 0) {
    fail<DataError>("image", "{}: JPEG compression of {}x{} pixels failed", path.string(), image.w, image.h);
  }
  write_data_file(path, bytes);
}

bool has_image_suffix(const std::filesystem::path& path) {
  const std::string s = lower_suffix(path);
  return s == ".png" || s == ".jpg" || s == ".jpeg";
}

namespace {

/// `above` are the folders on the way here: a link back to one of them is not followed.
void collect_images(const std::filesystem::path& folder, std::set<std::filesystem::path>& above,
                    std::vector<std::filesystem::path>& found) {
  std::error_code error, unknown;
  const std::filesystem::path real = std::filesystem::canonical(folder, error);
  if (!error && !above.insert(real).second) return;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(unknown)) {
      collect_images(it->path(), above, found);
    } else if (it->is_regular_file(unknown) && has_image_suffix(it->path())) {
      found.push_back(it->path());
    }
  }
  if (error) fail<DataError>("image", "cannot list {}: {}", folder.string(), error.message());
  above.erase(real);
}

}  // namespace

std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) fail<DataError>("image", "{}: is not a folder", folder.string());
  std::vector<std::filesystem::path> found;
  std::set<std::filesystem::path> above;
  collect_images(folder, above, found);
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace limbeck::datasets
