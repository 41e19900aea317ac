// Which bytes are UTF-8; see core/utf8.h.

#include "core/utf8.h"

#include <cstdint>

namespace limbeck {

std::size_t utf8_length(std::string_view s) {
  if (s.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char b = byte(0);
  if (b < 0x80) return 1;
  std::size_t length = 0;
  std::uint32_t code = 0;
  if (b >= 0xC2 && b < 0xE0) {
    length = 2;
    code = b & 0x1FU;
  } else if (b >= 0xE0 && b < 0xF0) {
    length = 3;
    code = b & 0x0FU;
  } else if (b >= 0xF0 && b < 0xF5) {
    length = 4;
    code = b & 0x07U;
  } else {
    return 0;
  }
  if (s.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
    code = (code << 6U) | (byte(i) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate || code > 0x10FFFF ? 0 : length;
}

}  // namespace limbeck
