// What this is: the YAML configuration tree. Typed getters, defaults, command-line overrides, and errors that name
//   file, line and key. Every key in a file must be asked for by the program; the others are mistakes.
// What it is not: a schema. The schema is the code that asks.
// Read next: apps/README.md (the presets).
//
//   Config config = Config::load("distill.yaml");
//   config.override_with("train.batch_size=8");
//   Config train = config.section("train");
//   const auto batch = train.get_in_range<std::int64_t>("batch_size", 4, 1, 4096);   // default 4
//   const auto root = config.get<std::string>("data.root");                           // required
//   config.check_all_used();          // throws: distill.yaml:7: unknown key 'train.bach_size', did you mean 'batch_size'?
//   write_file_atomic(run / "config.yaml", config.dump());   // what was in force, defaults included
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace limbeck {

struct ConfigNode;  // one mapping, list or value with its place in the source
struct ConfigTree;  // owner of the nodes; both in core/config_tree.h

/// Handle to a mapping of the tree; copies refer to the same tree. Keys may be paths: "train.optimizer.lr".
///
/// T in the getters: bool, int, std::int64_t, double, std::string, and std::vector of int64_t, double, string.
/// An integer may be written 4e4; a number must be finite; a bool is true or false. A lone value is accepted where a
/// list is asked for.
class Config {
 public:
  /// An empty configuration; useful with override_with.
  Config();
  /// Throws ConfigError naming file and line for: a missing file, broken YAML, a duplicate key (both lines), a key that
  /// is not plain text, a root that is no mapping, more than one document.
  [[nodiscard]] static Config load(const std::filesystem::path& path);
  /// `name` stands for the file in messages.
  [[nodiscard]] static Config parse(std::string_view text, std::string_view name);

  /// Sets one value: "a.b=c". The right side is YAML, so lists work: "crop=[256, 256]". Numbers address list entries:
  /// "losses.0.weight=3". Missing sections are made. Call on the root, before the getters.
  void override_with(std::string_view assignment);

  /// An independent copy of this section as a root of its own, as the user wrote it: without defaults, without a record of
  /// what was asked, and without the keys in `leave_out`. Counts as asking for everything here: the copy answers for it.
  [[nodiscard]] Config copy(const std::vector<std::string_view>& leave_out = {}) const;
  /// Lays `other` over this section: sections are joined key by key, everything else (lists too) is replaced.
  void merge(const Config& other);

  /// True if the key has a value (null counts as absent). Counts as asking for the key.
  [[nodiscard]] bool has(std::string_view key) const;
  /// Required value; throws ConfigError naming the section's place and the key.
  template <class T>
  [[nodiscard]] T get(std::string_view key) const;
  /// Value or `fallback` when the key is absent or null; the fallback becomes part of dump().
  template <class T>
  [[nodiscard]] T get(std::string_view key, const T& fallback) const;
  template <class T>
  [[nodiscard]] std::optional<T> find(std::string_view key) const;
  [[nodiscard]] std::string get(std::string_view key, const char* fallback) const {
    return get<std::string>(key, std::string(fallback));
  }
  /// As get, and throws unless low <= value <= high. T: int, int64_t, double.
  template <class T>
  [[nodiscard]] T get_in_range(std::string_view key, T low, T high) const;
  template <class T>
  [[nodiscard]] T get_in_range(std::string_view key, T fallback, T low, T high) const;
  /// One of the listed words, otherwise an error with the list and the nearest word.
  [[nodiscard]] std::string choice(std::string_view key, std::string_view fallback,
                                   std::initializer_list<std::string_view> words) const;

  /// Nested mapping; empty (and still asked for) when absent.
  [[nodiscard]] Config section(std::string_view key) const;
  /// True if the key holds a mapping. Does not count as asking.
  [[nodiscard]] bool is_section(std::string_view key) const;
  /// List of mappings; empty when absent.
  [[nodiscard]] std::vector<Config> sections(std::string_view key) const;
  /// Names of all keys here, in file order. Does not count as asking.
  [[nodiscard]] std::vector<std::string> keys() const;

  /// "file.yaml:12" of a key (or of this section when the key is absent); for the caller's own messages.
  [[nodiscard]] std::string where(std::string_view key = {}) const;
  /// Throws ConfigError "file:line: [key] message" about a key of this section.
  [[noreturn]] void reject(std::string_view key, std::string_view message) const;

  /// Throws one ConfigError that lists every key nobody asked for, each with file, line and the nearest known key.
  void check_all_used() const;
  /// The configuration in force as YAML: file values, overrides, and the defaults that were asked for.
  [[nodiscard]] std::string dump() const;

 private:
  Config(std::shared_ptr<ConfigTree> tree, ConfigNode* node, std::string path);
  [[nodiscard]] ConfigNode* lookup(std::string_view key) const;
  std::shared_ptr<ConfigTree> tree_;
  ConfigNode* node_;
  std::string path_;  // of this section from the root, "" for the root
};

}  // namespace limbeck
