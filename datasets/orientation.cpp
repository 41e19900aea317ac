#include "datasets/orientation.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace limbeck::datasets {
namespace {

using Bytes = std::span<const std::uint8_t>;

/// Numbers of a TIFF structure, in the order of bytes that its first two letters name; 0 beyond the end.
class Tiff {
 public:
  explicit Tiff(Bytes bytes) noexcept : bytes_(bytes), little_(bytes.size() >= 2 && bytes[0] == 'I') {}

  [[nodiscard]] std::uint32_t number(std::size_t at, std::size_t size) const noexcept {
    if (at > bytes_.size() || size > bytes_.size() - at) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8U | bytes_[at + (little_ ? size - 1 - i : i)];
    return value;
  }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }

 private:
  Bytes bytes_;
  bool little_;
};

/// The tag in the first directory of a TIFF structure; 0 if it is not there.
std::uint32_t orientation_tag(const Tiff& tiff) noexcept {
  constexpr std::uint32_t kMagic = 42, kOrientation = 0x0112, kShort = 3;
  constexpr std::size_t kEntryBytes = 12;
  if (tiff.number(2, 2) != kMagic) return 0;
  const std::size_t directory = tiff.number(4, 4);
  const std::size_t entries = tiff.number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t at = directory + 2 + i * kEntryBytes;
    if (at + kEntryBytes > tiff.size()) return 0;
    if (tiff.number(at, 2) == kOrientation) return tiff.number(at + 2, 2) == kShort ? tiff.number(at + 8, 2) : 0;
  }
  return 0;
}

}  // namespace

int orientation_of(Bytes file) noexcept {
  constexpr std::string_view kExif{"Exif\0\0", 6};
  if (file.size() < 2 || file[0] != 0xFF || file[1] != 0xD8) return 1;
  for (std::size_t i = 2; i + 4 <= file.size() && file[i] == 0xFF;) {
    const std::uint8_t marker = file[i + 1];
    if (marker == 0xDA || marker == 0xD9) break;  // compressed data, end
    const std::size_t length = static_cast<std::size_t>(file[i + 2]) << 8U | file[i + 3];
    if (marker == 0xFF) {  // a fill byte
      ++i;
      continue;
    }
    if (length < 2 || length > file.size() - i - 2) break;
    const Bytes segment = file.subspan(i + 4, length - 2);
    if (marker == 0xE1 && segment.size() > kExif.size() && std::equal(kExif.begin(), kExif.end(), segment.begin())) {
      const std::uint32_t tag = orientation_tag(Tiff(segment.subspan(kExif.size())));
      return tag >= 1 && tag <= 8 ? static_cast<int>(tag) : 1;
    }
    i += 2 + length;
  }
  return 1;
}

Image upright(Image stored, int orientation) {
  LIMBECK_CHECK(orientation >= 1 && orientation <= 8, "orientation", "{}, expected 1 to 8", orientation);
  if (orientation == 1) return stored;
  // From 5 on rows and columns change places; then come the mirrors.
  const bool transposed = orientation >= 5;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  Image out;
  out.h = transposed ? stored.w : stored.h;
  out.w = transposed ? stored.h : stored.w;
  out.rgb.resize(stored.rgb.size());
  for (std::int64_t y = 0; y < out.h; ++y) {
    for (std::int64_t x = 0; x < out.w; ++x) {
      const std::int64_t row = transposed ? x : y, column = transposed ? y : x;
      const std::uint8_t* from =
          stored.at(from_bottom ? stored.h - 1 - row : row, from_right ? stored.w - 1 - column : column);
      std::copy(from, from + 3, out.at(y, x));
    }
  }
  return out;
}

}  // namespace limbeck::datasets
