// What this is: the nodes behind Config, reading them from YAML, writing them back. Internal to core/config*.cpp.
// What it is not: the public interface (core/config.h).
// Read next: core/config_tree.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config.h"

namespace limbeck {

/// Owned by its parent; `place` is "file.yaml:12" or "command line 'a=b'".
struct ConfigNode {
  enum class Kind : std::uint8_t { kNull, kValue, kList, kMap };
  Kind kind = Kind::kNull;
  std::string place;
  std::string text;        // kValue
  bool quoted = false;     // kValue: "1" in quotes is text, not a number
  bool from_code = false;  // a default that the program asked for, not something written by the user
  bool asked = false;
  std::vector<std::string> keys;                      // kMap: names of the children
  std::vector<std::string> asked_keys;                // kMap: what the program asked for here, present or not
  std::vector<std::unique_ptr<ConfigNode>> children;  // kMap, kList

  [[nodiscard]] ConfigNode* child(std::string_view key) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == key) return children[i].get();
    }
    return nullptr;
  }
  ConfigNode* add(std::string key, std::unique_ptr<ConfigNode> node) {
    keys.push_back(std::move(key));
    children.push_back(std::move(node));
    return children.back().get();
  }
  void ask(std::string_view key) {
    if (std::find(asked_keys.begin(), asked_keys.end(), key) == asked_keys.end()) asked_keys.emplace_back(key);
  }
};

struct ConfigTree {
  std::string name;
  std::unique_ptr<ConfigNode> root;
};

/// Throws ConfigError "place: message".
[[noreturn]] void config_fail(std::string_view place, std::string_view message);
/// "path.key", or "key" at the root.
[[nodiscard]] std::string config_join(std::string_view path, std::string_view key);
/// "a.b.c" as the path "a.b" and the last key "c".
[[nodiscard]] std::pair<std::string_view, std::string_view> config_split_last(std::string_view key);
/// "'text'", "a list", "a section", "nothing": for "expected an integer, found ...".
[[nodiscard]] std::string config_found(const ConfigNode& node);
/// Text of the user in a message, cut where it would bury the rest.
[[nodiscard]] std::string config_shown(std::string_view text);
/// Strict: the whole text must be one finite number.
[[nodiscard]] bool parse_finite(std::string_view text, double& out);

/// Parses one YAML document; a node of kind kNull for an empty one. Lines are reported as "name:12", or, if
/// `fixed_place` is not empty, as that (command line). Texts of more than 1 MiB or with control characters are refused, and trees of
/// more than 32 MiB (aliases multiply) or 100 levels.
[[nodiscard]] std::unique_ptr<ConfigNode> parse_config_yaml(std::string_view text, const std::string& name,
                                                            const std::string& fixed_place);
/// YAML text of a tree, without sections that only exist because the program looked into them.
[[nodiscard]] std::string dump_config_yaml(const ConfigNode& node);

}  // namespace limbeck
