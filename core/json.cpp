// JSON text building; see core/json.h.

#include "core/json.h"

#include <fmt/format.h>

#include <cmath>

#include "core/utf8.h"

namespace limbeck {

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text[0];
    if (length == 0) {
      out += "\xEF\xBF\xBD";
    } else if (length > 1) {
      out += text.substr(0, length);
    } else {
      switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          } else {
            out += c;
          }
      }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + "\"";
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  return fmt::format("{}", value);
}

JsonObject& JsonObject::add(std::string_view key, float value) {
  return add_raw(key, std::isfinite(value) ? fmt::format("{}", value) : "null");
}

JsonObject& JsonObject::add(std::string_view key, std::span<const double> values) {
  std::string list;
  for (const double v : values) list += (list.empty() ? "" : ",") + json_number(v);
  return add_raw(key, "[" + list + "]");
}

JsonObject& JsonObject::add(std::string_view key, std::span<const std::int64_t> values) {
  return add_raw(key, fmt::format("[{}]", fmt::join(values, ",")));
}

JsonObject& JsonObject::add(std::string_view key, std::span<const std::string> values) {
  std::string list;
  for (const std::string& v : values) list += (list.empty() ? "" : ",") + json_quote(v);
  return add_raw(key, "[" + list + "]");
}

JsonObject& JsonObject::add_raw(std::string_view key, std::string_view json) {
  if (!body_.empty()) body_ += ',';
  body_ += json_quote(key);
  body_ += ':';
  body_ += json;
  return *this;
}

std::string json_array(std::span<const std::string> items) { return fmt::format("[{}]", fmt::join(items, ",")); }

}  // namespace limbeck
