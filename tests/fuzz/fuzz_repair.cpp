// Formats with checksums: see Reader::repair.
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "tests/fuzz/readers.h"

namespace limbeck::fuzz {
namespace {

using Writable = std::span<std::uint8_t>;

/// A number of `bytes` bytes at `at`, little-endian; 0 beyond the end.
std::size_t little(Bytes file, std::size_t at, std::size_t bytes) {
  if (at > file.size() || file.size() - at < bytes) return 0;
  std::size_t value = 0;
  for (std::size_t i = bytes; i-- > 0;) value = (value << 8U) | file[at + i];
  return value;
}

void put_little(Writable file, std::size_t at, std::size_t bytes, std::size_t value) {
  if (at > file.size() || file.size() - at < bytes) return;
  for (std::size_t i = 0; i < bytes; ++i) file[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
}

std::size_t checksum(Bytes bytes) { return crc32(0, bytes.data(), static_cast<uInt>(bytes.size())); }

}  // namespace

void repair_safetensors(Writable file) {
  if (file.size() < 8) return;
  const auto last = std::find(file.rbegin(), file.rend() - 8, std::uint8_t{'}'});
  put_little(file, 0, 8, static_cast<std::size_t>(file.rend() - 8 - last));
}

void repair_zip(Writable file) {
  static constexpr std::string_view kEnd{"PK\x05\x06", 4}, kEntry{"PK\x01\x02", 4}, kLocal{"PK\x03\x04", 4};
  const auto is = [&](std::size_t at, std::string_view what) {
    return at <= file.size() && file.size() - at >= what.size() &&
           std::equal(what.begin(), what.end(), file.begin() + static_cast<std::ptrdiff_t>(at));
  };
  const auto end = std::find_end(file.begin(), file.end(), kEnd.begin(), kEnd.end());
  std::size_t at = little(file, static_cast<std::size_t>(end - file.begin()) + 16, 4);
  while (is(at, kEntry)) {
    const std::size_t method = little(file, at + 10, 2), size = little(file, at + 20, 4),
                      local = little(file, at + 42, 4);
    const std::size_t data = local + 30 + little(file, local + 26, 2) + little(file, local + 28, 2);
    if (method == 0 && is(local, kLocal) && data <= file.size() && size <= file.size() - data) {
      const std::size_t sum = checksum(file.subspan(data, size));
      put_little(file, at + 16, 4, sum);
      if ((little(file, local + 6, 2) & 8U) == 0) put_little(file, local + 14, 4, sum);  // else it follows the data
    }
    at += 46 + little(file, at + 28, 2) + little(file, at + 30, 2) + little(file, at + 32, 2);
  }
}

void repair_png(Writable file) {
  if (file.size() < 8 || file[0] != 0x89) return;
  std::size_t at = 8;
  while (file.size() - at >= 12) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = (length << 8U) | file[at + i];
    if (length > file.size() - at - 12) return;
    const std::size_t sum = checksum(file.subspan(at + 4, length + 4));
    for (std::size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

}  // namespace limbeck::fuzz
