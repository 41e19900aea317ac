// What this is: a small JSON text builder for metrics.jsonl, run.json and `--json` output.
// What it is not: a parser (nlohmann-json, used inside single .cpp files).
// Read next: core/log.h (JsonlWriter).
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace limbeck {

/// `text` in double quotes with JSON escapes. Bytes that are not valid UTF-8 become U+FFFD.
[[nodiscard]] std::string json_quote(std::string_view text);
/// Shortest text that reads back as the same double; "null" for NaN and infinity, which JSON cannot express.
[[nodiscard]] std::string json_number(double value);

/// One JSON object, keys in the order they were added.
///
///   JsonObject().add("iter", 100).add("loss", 0.25).add("name", "cwd").str()  ->  {"iter":100,"loss":0.25,"name":"cwd"}
class JsonObject {
 public:
  JsonObject& add(std::string_view key, double value) { return add_raw(key, json_number(value)); }
  /// The shortest text that reads back as the same float: 0.1f gives 0.1.
  JsonObject& add(std::string_view key, float value);
  JsonObject& add(std::string_view key, std::integral auto value) { return add_raw(key, std::to_string(value)); }
  JsonObject& add(std::string_view key, bool value) { return add_raw(key, value ? "true" : "false"); }
  JsonObject& add(std::string_view key, std::string_view value) { return add_raw(key, json_quote(value)); }
  JsonObject& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  JsonObject& add(std::string_view key, const std::string& value) { return add(key, std::string_view(value)); }
  JsonObject& add(std::string_view key, const JsonObject& value) { return add_raw(key, value.str()); }
  JsonObject& add(std::string_view key, std::span<const double> values);
  JsonObject& add(std::string_view key, std::span<const std::int64_t> values);
  JsonObject& add(std::string_view key, std::span<const std::string> values);
  /// `json` must be valid JSON text, e.g. from another builder.
  JsonObject& add_raw(std::string_view key, std::string_view json);

  [[nodiscard]] bool empty() const noexcept { return body_.empty(); }
  [[nodiscard]] std::string str() const { return "{" + body_ + "}"; }

 private:
  std::string body_;
};

/// "[a,b,c]" from texts that are valid JSON.
[[nodiscard]] std::string json_array(std::span<const std::string> items);

}  // namespace limbeck
