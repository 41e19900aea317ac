// Sections and overrides, the record of what was asked for, and the report of what was not.
// Read next: core/config_values.cpp (typed getters), core/config_tree.cpp (YAML); tests/test_config.cpp shows every message.

#include "core/config.h"

#include <algorithm>
#include <utility>

#include "core/config_tree.h"
#include "core/file_io.h"
#include "core/nearest_word.h"
#include "core/parse_number.h"

namespace limbeck {
namespace {

using Kind = ConfigNode::Kind;

std::vector<std::string_view> split_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto dot = path.find('.');
    parts.push_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

/// The mapping called `key` inside `map`, made if absent (or null); asked for in any case.
ConfigNode* enter(ConfigNode* map, std::string_view key, const std::string& path) {
  map->ask(key);
  ConfigNode* child = map->child(key);
  if (child == nullptr) {
    auto made = std::make_unique<ConfigNode>();
    made->place = map->place;
    made->from_code = true;
    child = map->add(std::string(key), std::move(made));
  }
  if (child->kind == Kind::kNull) child->kind = Kind::kMap;
  if (child->kind != Kind::kMap) {
    config_fail(child->place, fmt::format("'{}': expected a section, found {}", path, config_found(*child)));
  }
  child->asked = true;
  return child;
}

// --- copies -------------------------------------------------------------------------------------------------------

/// What the user wrote below `node`, which counts as asked for from now on.
std::unique_ptr<ConfigNode> copy_written(ConfigNode& node, const std::vector<std::string_view>& leave_out = {}) {
  node.asked = true;
  auto out = std::make_unique<ConfigNode>();
  out->kind = node.kind;
  out->place = node.place;
  out->text = node.text;
  out->quoted = node.quoted;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    ConfigNode& child = *node.children[i];
    if (node.kind != Kind::kMap) {
      out->children.push_back(copy_written(child));
      continue;
    }
    const bool left_out = std::find(leave_out.begin(), leave_out.end(), node.keys[i]) != leave_out.end();
    // A section that was only looked into may hold values the user wrote on the command line; plain defaults go.
    auto copied = copy_written(child);
    if (left_out || (child.from_code && child.kind != Kind::kMap)) continue;
    if (child.from_code && copied->children.empty()) continue;
    out->add(node.keys[i], std::move(copied));
  }
  return out;
}

void lay_over(ConfigNode& base, std::unique_ptr<ConfigNode> top) {
  if (base.kind != Kind::kMap || top->kind != Kind::kMap) {
    base = std::move(*top);
    return;
  }
  for (std::size_t i = 0; i < top->children.size(); ++i) {
    if (ConfigNode* child = base.child(top->keys[i])) {
      lay_over(*child, std::move(top->children[i]));
    } else {
      base.add(top->keys[i], std::move(top->children[i]));
    }
  }
}

// --- unknown keys -------------------------------------------------------------------------------------------------

void collect_asked(const ConfigNode& node, const std::string& path, std::vector<std::string>& out) {
  for (const auto& key : node.asked_keys) out.push_back(config_join(path, key));
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const std::string name = node.kind == Kind::kMap ? node.keys[i] : std::to_string(i);
    collect_asked(*node.children[i], config_join(path, name), out);
  }
}

void report_unused(const ConfigNode& node, const std::string& path, const std::vector<std::string>& all_asked,
                   std::vector<std::string>& out) {
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const ConfigNode& child = *node.children[i];
    const std::string key = node.kind == Kind::kMap ? node.keys[i] : std::to_string(i);
    const std::string full = config_join(path, key);
    if (child.asked) {
      if (child.kind == Kind::kMap || child.kind == Kind::kList) report_unused(child, full, all_asked, out);
      continue;
    }
    if (child.from_code) continue;
    std::string hint = nearest_word(key, node.asked_keys);
    if (hint.empty()) {  // right word, wrong section
      for (const auto& asked : all_asked) {
        if (config_split_last(asked).second == key) hint = asked;
      }
    }
    out.push_back(fmt::format("{}: unknown key '{}'{}", child.place, full,
                              hint.empty() ? "" : fmt::format(", did you mean '{}'?", hint)));
  }
}

}  // namespace

// --- Config -------------------------------------------------------------------------------------------------------

Config::Config(std::shared_ptr<ConfigTree> tree, ConfigNode* node, std::string path)
    : tree_(std::move(tree)), node_(node), path_(std::move(path)) {}

Config::Config() : Config(parse("", "command line")) {}

Config Config::load(const std::filesystem::path& path) { return parse(read_file<ConfigError>(path), path.string()); }

Config Config::parse(std::string_view text, std::string_view name) {
  auto tree = std::make_shared<ConfigTree>();
  tree->name = name;
  tree->root = parse_config_yaml(text, tree->name, {});
  ConfigNode* root = tree->root.get();
  if (root->kind == Kind::kNull) root->kind = Kind::kMap;  // an empty file
  if (root->kind != Kind::kMap)
    config_fail(root->place, fmt::format("expected 'key: value' lines, found {}", config_found(*root)));
  root->place = tree->name;
  return {std::move(tree), root, ""};
}

void Config::override_with(std::string_view assignment) {
  const std::string place = fmt::format("command line '{}'", assignment);
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) config_fail(place, "expected key=value");
  auto value = parse_config_yaml(assignment.substr(equals + 1), {}, place);
  value->place = place;
  const auto parts = split_path(assignment.substr(0, equals));
  ConfigNode* node = node_;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    if (part.empty()) config_fail(place, "empty key");
    const bool last = i + 1 == parts.size();
    if (node->kind == Kind::kList) {
      const auto index = parse_number<std::size_t>(part);
      if (!index || *index >= node->children.size()) {
        config_fail(
            place, fmt::format("'{}' is no entry of a list of {} (from {})", part, node->children.size(), node->place));
      }
      if (last) {
        node->children[*index] = std::move(value);
      } else {
        node = node->children[*index].get();
      }
      continue;
    }
    if (node->kind == Kind::kNull) node->kind = Kind::kMap;
    if (node->kind != Kind::kMap) {
      config_fail(place, fmt::format("'{}' goes into {} (from {}), which is no section", part, config_found(*node),
                                     node->place));
    }
    const auto it = std::find(node->keys.begin(), node->keys.end(), part);
    if (last && it != node->keys.end()) {
      node->children[static_cast<std::size_t>(it - node->keys.begin())] = std::move(value);
    } else if (last) {
      node->add(std::string(part), std::move(value));
    } else if (it != node->keys.end()) {
      node = node->children[static_cast<std::size_t>(it - node->keys.begin())].get();
    } else {
      auto made = std::make_unique<ConfigNode>();
      made->kind = Kind::kMap;
      made->place = place;
      node = node->add(std::string(part), std::move(made));
    }
  }
}

Config Config::copy(const std::vector<std::string_view>& leave_out) const {
  auto tree = std::make_shared<ConfigTree>();
  tree->name = tree_->name;
  tree->root = copy_written(*node_, leave_out);
  ConfigNode* root = tree->root.get();
  return {std::move(tree), root, ""};
}

void Config::merge(const Config& other) { lay_over(*node_, copy_written(*other.node_)); }

ConfigNode* Config::lookup(std::string_view key) const {
  auto [head, last] = config_split_last(key);
  ConfigNode* map = node_;
  if (!head.empty()) map = section(head).node_;
  map->ask(last);
  ConfigNode* child = map->child(last);
  if (child == nullptr) return nullptr;
  child->asked = true;
  return child->kind == Kind::kNull ? nullptr : child;
}

bool Config::has(std::string_view key) const { return lookup(key) != nullptr; }

Config Config::section(std::string_view key) const {
  ConfigNode* node = node_;
  std::string path = path_;
  for (const auto part : split_path(key)) {
    path = config_join(path, part);
    node = enter(node, part, path);
  }
  return {tree_, node, path};
}

bool Config::is_section(std::string_view key) const {
  const ConfigNode* node = node_;
  for (const auto part : split_path(key)) {
    node = node->child(part);
    if (node == nullptr) return false;
  }
  return node->kind == Kind::kMap;
}

std::vector<Config> Config::sections(std::string_view key) const {
  std::vector<Config> out;
  ConfigNode* list = lookup(key);
  if (list == nullptr) return out;
  const std::string path = config_join(path_, key);
  if (list->kind != Kind::kList) {
    config_fail(list->place, fmt::format("'{}': expected a list of sections, found {}", path, config_found(*list)));
  }
  for (std::size_t i = 0; i < list->children.size(); ++i) {
    ConfigNode* node = list->children[i].get();
    const std::string item = fmt::format("{}.{}", path, i);
    if (node->kind != Kind::kMap)
      config_fail(node->place, fmt::format("'{}': expected a section, found {}", item, config_found(*node)));
    node->asked = true;
    out.push_back(Config(tree_, node, item));
  }
  return out;
}

std::vector<std::string> Config::keys() const { return node_->keys; }

std::string Config::where(std::string_view key) const {
  const ConfigNode* node = node_;
  if (!key.empty()) {
    for (const auto part : split_path(key)) {
      const ConfigNode* child = node->child(part);
      if (child == nullptr) break;
      node = child;
    }
  }
  return node->place;
}

void Config::reject(std::string_view key, std::string_view message) const {
  config_fail(where(key), fmt::format("'{}': {}", config_join(path_, key), message));
}

void Config::check_all_used() const {
  std::vector<std::string> asked;
  collect_asked(*tree_->root, "", asked);
  std::vector<std::string> lines;
  report_unused(*tree_->root, "", asked, lines);
  if (!lines.empty()) throw ConfigError(fmt::format("{}", fmt::join(lines, "\n")));
}

std::string Config::dump() const { return dump_config_yaml(*node_); }

}  // namespace limbeck
