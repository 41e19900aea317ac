// The typed getters of Config: from the text of a value to a bool, a number, a text or a list, and back for the defaults that
// dump() shows.
// Read next: core/config.cpp; tests/test_config.cpp shows every message.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/config_tree.h"
#include "core/nearest_word.h"
#include "core/parse_number.h"

namespace limbeck {
namespace {

using Kind = ConfigNode::Kind;

bool parse_integer(std::string_view text, std::int64_t& out) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (const auto whole = parse_number<std::int64_t>(text)) {
    out = *whole;
    return true;
  }
  double number = 0;  // 4e4; exact up to 2^53
  if (!parse_finite(text, number) || number != std::floor(number) || std::abs(number) > 0x1p53) return false;
  out = static_cast<std::int64_t>(number);
  return true;
}

template <class T>
struct ValueType;
template <>
struct ValueType<bool> {
  static constexpr const char* kName = "true or false";
  static bool parse(const ConfigNode& node, bool& out) {
    out = node.text == "true";
    return !node.quoted && (out || node.text == "false");
  }
  static std::string text(bool value) { return value ? "true" : "false"; }
};
template <>
struct ValueType<std::int64_t> {
  static constexpr const char* kName = "an integer";
  static bool parse(const ConfigNode& node, std::int64_t& out) { return !node.quoted && parse_integer(node.text, out); }
  static std::string text(std::int64_t value) { return std::to_string(value); }
};
template <>
struct ValueType<int> {
  static constexpr const char* kName = "an integer of at most 32 bits";
  static bool parse(const ConfigNode& node, int& out) {
    std::int64_t wide = 0;
    if (!ValueType<std::int64_t>::parse(node, wide)) return false;
    out = static_cast<int>(wide);
    return out == wide;
  }
  static std::string text(int value) { return std::to_string(value); }
};
template <>
struct ValueType<double> {
  static constexpr const char* kName = "a finite number";
  static bool parse(const ConfigNode& node, double& out) { return !node.quoted && parse_finite(node.text, out); }
  static std::string text(double value) { return fmt::format("{}", value); }
};
template <>
struct ValueType<std::string> {
  static constexpr const char* kName = "a text";
  static bool parse(const ConfigNode& node, std::string& out) {
    out = node.text;
    return true;
  }
  static std::string text(const std::string& value) { return value; }
};

template <class T>
T convert_value(const ConfigNode& node, const std::string& path) {
  T out{};
  if (node.kind != Kind::kValue || !ValueType<T>::parse(node, out)) {
    config_fail(node.place, fmt::format("'{}': expected {}, found {}", path, ValueType<T>::kName, config_found(node)));
  }
  return out;
}

template <class T>
struct Converter {
  static T read(const ConfigNode& node, const std::string& path) { return convert_value<T>(node, path); }
  static void write(ConfigNode& node, const T& value) {
    node.kind = Kind::kValue;
    node.text = ValueType<T>::text(value);
    node.quoted = std::is_same_v<T, std::string>;
  }
};

template <class T>
struct Converter<std::vector<T>> {
  static std::vector<T> read(const ConfigNode& node, const std::string& path) {
    if (node.kind == Kind::kValue) return {convert_value<T>(node, path)};
    if (node.kind != Kind::kList)
      config_fail(node.place, fmt::format("'{}': expected a list, found {}", path, config_found(node)));
    std::vector<T> out;
    out.reserve(node.children.size());
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      node.children[i]->asked = true;
      out.push_back(convert_value<T>(*node.children[i], fmt::format("{}.{}", path, i)));
    }
    return out;
  }
  static void write(ConfigNode& node, const std::vector<T>& values) {
    node.kind = Kind::kList;
    for (const T& v : values) {
      auto child = std::make_unique<ConfigNode>();
      Converter<T>::write(*child, v);
      child->place = node.place;
      child->from_code = child->asked = true;
      node.children.push_back(std::move(child));
    }
  }
};

}  // namespace

template <class T>
std::optional<T> Config::find(std::string_view key) const {
  const ConfigNode* node = lookup(key);
  if (node == nullptr) return std::nullopt;
  return Converter<T>::read(*node, config_join(path_, key));
}

template <class T>
T Config::get(std::string_view key) const {
  if (auto value = find<T>(key)) return *std::move(value);
  config_fail(where(key), fmt::format("'{}' is missing", config_join(path_, key)));
}

template <class T>
T Config::get(std::string_view key, const T& fallback) const {
  if (auto value = find<T>(key)) return *std::move(value);
  const auto [head, last] = config_split_last(key);
  ConfigNode* map = head.empty() ? node_ : section(head).node_;
  ConfigNode* node = map->child(last);  // present when the user wrote null
  if (node == nullptr) node = map->add(std::string(last), std::make_unique<ConfigNode>());
  node->place = map->place;
  node->from_code = node->asked = true;
  Converter<T>::write(*node, fallback);
  return fallback;
}

template <class T>
T Config::get_in_range(std::string_view key, T low, T high) const {
  const T value = get<T>(key);
  if (!(value >= low && value <= high)) reject(key, fmt::format("expected {} to {}, found {}", low, high, value));
  return value;
}

template <class T>
T Config::get_in_range(std::string_view key, T fallback, T low, T high) const {
  static_cast<void>(get<T>(key, fallback));  // puts the fallback in place
  return get_in_range<T>(key, low, high);
}

#define LIMBECK_CONFIG_TYPE(T)                                       \
  template std::optional<T> Config::find<T>(std::string_view) const; \
  template T Config::get<T>(std::string_view) const;                 \
  template T Config::get<T>(std::string_view, const T&) const;
LIMBECK_CONFIG_TYPE(bool)
LIMBECK_CONFIG_TYPE(int)
LIMBECK_CONFIG_TYPE(std::int64_t)
LIMBECK_CONFIG_TYPE(double)
LIMBECK_CONFIG_TYPE(std::string)
LIMBECK_CONFIG_TYPE(std::vector<std::int64_t>)
LIMBECK_CONFIG_TYPE(std::vector<double>)
LIMBECK_CONFIG_TYPE(std::vector<std::string>)
#undef LIMBECK_CONFIG_TYPE
#define LIMBECK_CONFIG_RANGE(T)                                     \
  template T Config::get_in_range<T>(std::string_view, T, T) const; \
  template T Config::get_in_range<T>(std::string_view, T, T, T) const;
LIMBECK_CONFIG_RANGE(int)
LIMBECK_CONFIG_RANGE(std::int64_t)
LIMBECK_CONFIG_RANGE(double)
#undef LIMBECK_CONFIG_RANGE

std::string Config::choice(std::string_view key, std::string_view fallback,
                           std::initializer_list<std::string_view> words) const {
  const auto value = get<std::string>(key, std::string(fallback));
  if (std::find(words.begin(), words.end(), value) != words.end()) return value;
  const std::string near = nearest_word(value, std::vector<std::string>(words.begin(), words.end()));
  reject(key, fmt::format("expected one of {}, found '{}'{}", fmt::join(words, ", "), value,
                          near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace limbeck
