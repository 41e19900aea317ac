// From YAML to ConfigNode and back. yaml-cpp's node API drops line numbers of keys and keeps duplicate keys silently, so
// the tree is built from its event stream instead. Nothing outside this file sees yaml-cpp.
// Read next: core/config.cpp.

#include "core/config_tree.h"

#include <yaml-cpp/emitter.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <cmath>
#include <functional>
#include <map>
#include <sstream>
#include <unordered_map>

#include "core/parse_number.h"
#include "core/utf8.h"

namespace limbeck {

using Kind = ConfigNode::Kind;

void config_fail(std::string_view place, std::string_view message) {
  throw ConfigError(fmt::format("{}: {}", place, message));
}

std::pair<std::string_view, std::string_view> config_split_last(std::string_view key) {
  const auto dot = key.rfind('.');
  if (dot == std::string_view::npos) return {{}, key};
  return {key.substr(0, dot), key.substr(dot + 1)};
}

std::string config_join(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

std::string config_found(const ConfigNode& node) {
  switch (node.kind) {
    case Kind::kNull: return "nothing";
    case Kind::kValue: return "'" + config_shown(node.text) + "'";
    case Kind::kList: return "a list";
    case Kind::kMap: return "a section";
  }
  return "?";
}

std::string config_shown(std::string_view text) {
  return text.size() > 80 ? std::string(text.substr(0, 80)) + "..." : std::string(text);
}

bool parse_finite(std::string_view text, double& out) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto number = parse_number<double>(text);
  if (!number || !std::isfinite(*number)) return false;
  out = *number;
  return true;
}

namespace {

constexpr std::size_t kMostText = std::size_t{1} << 20U;
constexpr std::size_t kMostTree = std::size_t{32} << 20U;

constexpr std::size_t kMostDepth = 100;

void check_depth(std::size_t depth, std::string_view place) {
  if (depth > kMostDepth) config_fail(place, fmt::format("nested more than {} levels deep", kMostDepth));
}

/// Why the first character of `text` has no place in a configuration; empty if it has. YAML is printable text: control characters
/// would come back as escapes that not every reader of the dump takes, and bytes that are no UTF-8 as other characters (yaml-cpp
/// would even take a text that begins with FE FF for UTF-16).
std::string bad_character(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  const std::size_t length = utf8_length(text);
  if (length == 0) return fmt::format("byte 0x{:02X} is not UTF-8, expected a text in UTF-8", byte);
  constexpr unsigned char kFirstOfC1 = 0xC2;  // the control characters U+0080 to U+009F are the bytes C2 80 to C2 9F
  const bool c1 = byte == kFirstOfC1 && static_cast<unsigned char>(text[1]) < 0xA0;
  const bool line_end = byte == '\n' || text.starts_with("\r\n");
  const bool c0 = (byte < 0x20 && byte != '\t' && !line_end) || byte == 0x7F;
  if (!c0 && !c1) return {};
  return fmt::format("a control character (byte 0x{:02X}), expected printable text",
                     c1 ? static_cast<unsigned char>(text[1]) : byte);
}

/// Of a file, or of a value that escapes like "\x01" are part of.
void check_characters(std::string_view text, const std::function<std::string(std::size_t line)>& place) {
  for (std::size_t line = 0; !text.empty(); text.remove_prefix(utf8_length(text))) {
    const std::string bad = bad_character(text);
    if (!bad.empty()) config_fail(place(line), bad);
    if (text[0] == '\n') ++line;
  }
}

/// What remains of kMostTree.
class Budget {
 public:
  void spend(const ConfigNode& node, std::string_view place) {
    std::size_t bytes = sizeof(ConfigNode) + node.place.size() + node.text.size();
    for (const std::string& key : node.keys) bytes += sizeof(std::string) + key.size();
    if (bytes > left_) config_fail(place, "too many values for a configuration (do aliases multiply?)");
    left_ -= bytes;
  }

 private:
  std::size_t left_ = kMostTree;
};

std::unique_ptr<ConfigNode> clone(const ConfigNode& node, std::size_t depth, Budget& budget, std::string_view place) {
  check_depth(depth, place);
  budget.spend(node, place);
  auto copy = std::make_unique<ConfigNode>();
  copy->kind = node.kind;
  copy->place = node.place;
  copy->text = node.text;
  copy->quoted = node.quoted;
  copy->keys = node.keys;
  for (const auto& child : node.children) copy->children.push_back(clone(*child, depth + 1, budget, place));
  return copy;
}

// --- reading ------------------------------------------------------------------------------------------------------

/// Turns yaml-cpp's events into ConfigNodes.
class TreeBuilder final : public YAML::EventHandler {
 public:
  /// `fixed_place`: reported instead of file and line (command line).
  TreeBuilder(std::string name, std::string fixed_place)
      : name_(std::move(name)), fixed_place_(std::move(fixed_place)) {}

  std::unique_ptr<ConfigNode> root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { value(mark, anchor, "", false, Kind::kNull); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    if (it == anchors_.end()) config_fail(place(mark), "alias inside its own definition");
    if (expects_key()) config_fail(place(mark), "an alias cannot be a key");
    attach(clone(*it->second, stack_.size(), budget_, place(mark)));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    check_characters(text, [&](std::size_t) { return place(mark); });
    const bool quoted = tag == "!";
    const bool null = !quoted && (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL");
    value(mark, anchor, text, quoted, null ? Kind::kNull : Kind::kValue);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor, Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor, Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  [[nodiscard]] std::string place(const YAML::Mark& mark) const {
    if (!fixed_place_.empty()) return fixed_place_;
    return fmt::format("{}:{}", name_, mark.line + 1);
  }

 private:
  struct Level {
    std::unique_ptr<ConfigNode> node;
    YAML::anchor_t anchor;
    bool have_key;
    std::string key, key_place;
    std::unordered_map<std::string, std::string> key_places;
  };

  [[nodiscard]] bool expects_key() const {
    return !stack_.empty() && stack_.back().node->kind == Kind::kMap && !stack_.back().have_key;
  }

  void value(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& text, bool quoted, Kind kind) {
    if (expects_key()) {
      take_key(mark, text);
      return;
    }
    auto node = std::make_unique<ConfigNode>();
    node->kind = kind;
    node->place = place(mark);
    node->text = text;
    node->quoted = quoted;
    budget_.spend(*node, node->place);
    remember(anchor, attach(std::move(node)));
  }

  void take_key(const YAML::Mark& mark, const std::string& text) {
    Level& level = stack_.back();
    if (text.empty()) config_fail(place(mark), "empty key");
    if (text.find('.') != std::string::npos) {
      config_fail(place(mark), fmt::format("key '{}' contains a dot; write nested sections", config_shown(text)));
    }
    level.key_place = place(mark);
    const auto [first, fresh] = level.key_places.emplace(text, level.key_place);
    if (!fresh) {
      config_fail(level.key_place,
                  fmt::format("duplicate key '{}', first given at {}", config_shown(text), first->second));
    }
    level.have_key = true;
    level.key = text;
  }

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, Kind kind) {
    if (expects_key()) config_fail(place(mark), "a key must be plain text");
    check_depth(stack_.size(), place(mark));
    auto node = std::make_unique<ConfigNode>();
    node->kind = kind;
    node->place = place(mark);
    budget_.spend(*node, node->place);
    stack_.push_back({std::move(node), anchor, false, {}, {}, {}});
  }

  void close() {
    Level level = std::move(stack_.back());
    stack_.pop_back();
    remember(level.anchor, attach(std::move(level.node)));
  }

  ConfigNode* attach(std::unique_ptr<ConfigNode> node) {
    if (stack_.empty()) {
      root = std::move(node);
      return root.get();
    }
    Level& level = stack_.back();
    if (level.node->kind == Kind::kList) {
      level.node->children.push_back(std::move(node));
      return level.node->children.back().get();
    }
    // Messages about a key point to the key, not to a value that may begin lines below.
    node->place = level.key_place;
    level.have_key = false;
    return level.node->add(std::move(level.key), std::move(node));
  }

  void remember(YAML::anchor_t anchor, const ConfigNode* node) {
    if (anchor != 0) anchors_[anchor] = node;
  }

  std::string name_, fixed_place_;
  std::vector<Level> stack_;
  std::map<YAML::anchor_t, const ConfigNode*> anchors_;
  Budget budget_;
};

/// Swallows all events. A first pass with it settles whether the text is YAML at all: while it is not, the events before
/// the error can be nonsense, and so would be a message derived from them.
class Validator final : public YAML::EventHandler {
 public:
  using Mark = YAML::Mark;
  void OnDocumentStart(const Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const Mark&, YAML::anchor_t) override {}
  void OnAlias(const Mark&, YAML::anchor_t) override {}
  void OnScalar(const Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

}  // namespace

std::unique_ptr<ConfigNode> parse_config_yaml(std::string_view text, const std::string& name,
                                              const std::string& fixed_place) {
  if (text.size() > kMostText) {
    config_fail(fixed_place.empty() ? name : fixed_place,
                fmt::format("{} bytes are no configuration, expected at most {}", text.size(), kMostText));
  }
  check_characters(
      text, [&](std::size_t line) { return fixed_place.empty() ? fmt::format("{}:{}", name, line + 1) : fixed_place; });
  TreeBuilder builder(name, fixed_place);
  try {
    std::istringstream all{std::string(text)};
    YAML::Parser validating(all);
    Validator nothing;
    // Two are enough to know, and yaml-cpp finds one document after another in a stray comma, for ever.
    for (int documents = 0; documents < 2 && validating.HandleNextDocument(nothing); ++documents) {
    }
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return std::make_unique<ConfigNode>();
    TreeBuilder second(name, fixed_place);
    if (parser.HandleNextDocument(second)) {
      config_fail(second.root ? second.root->place : name,
                  "a second document, or a stray comma; a configuration is one document");
    }
  } catch (const YAML::Exception& e) {
    config_fail(builder.place(e.mark), fmt::format("not valid YAML: {}", e.msg));
  }
  if (!builder.root) return std::make_unique<ConfigNode>();
  return std::move(builder.root);
}

namespace {

// --- output -------------------------------------------------------------------------------------------------------

bool is_plain_list(const ConfigNode& node) {
  return std::all_of(node.children.begin(), node.children.end(),
                     [](const auto& c) { return c->kind == Kind::kValue || c->kind == Kind::kNull; });
}

/// Would `text` without quotes be read as something other than text?
bool needs_quotes(const std::string& text) {
  double number = 0;
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL" || text == "true" ||
         text == "false" || parse_finite(text, number);
}

/// Sections that only exist because the program looked into them are not worth a line.
bool worth_printing(const ConfigNode& node) {
  if (!node.from_code || node.kind != Kind::kMap) return true;
  return std::any_of(node.children.begin(), node.children.end(), [](const auto& c) { return worth_printing(*c); });
}

void emit(const ConfigNode& node, YAML::Emitter& out) {
  switch (node.kind) {
    case Kind::kNull: out << YAML::Null; return;
    case Kind::kValue:
      if (node.quoted && needs_quotes(node.text)) out << YAML::DoubleQuoted;
      out << node.text;
      return;
    case Kind::kList:
      if (is_plain_list(node)) out << YAML::Flow;
      out << YAML::BeginSeq;
      for (const auto& child : node.children) emit(*child, out);
      out << YAML::EndSeq;
      return;
    case Kind::kMap:
      out << YAML::BeginMap;
      for (std::size_t i = 0; i < node.children.size(); ++i) {
        if (!worth_printing(*node.children[i])) continue;
        out << YAML::Key << node.keys[i] << YAML::Value;
        emit(*node.children[i], out);
      }
      out << YAML::EndMap;
      return;
  }
}

}  // namespace

std::string dump_config_yaml(const ConfigNode& node) {
  YAML::Emitter out;
  emit(node, out);
  return std::string(out.c_str()) + "\n";
}

}  // namespace limbeck
