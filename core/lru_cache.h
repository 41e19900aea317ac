// What this is: a bounded least-recently-used cache keyed by a plain struct compared byte for byte (oneDNN primitives,
//   cuDNN plans). Not thread safe: give each thread its own, or lock outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace limbeck {

/// `Key` must be trivially copyable and zero-initialised including padding (use `Key k{}` then memset in its factory).
template <class Key, class Value>
class LruCache {
  static_assert(std::is_trivially_copyable_v<Key>);

 public:
  explicit LruCache(std::size_t capacity) : capacity_(capacity) {}

  /// Returns the cached value or inserts `make()`. The reference stays valid until the entry is evicted.
  template <class Make>
  Value& get(const Key& key, const Make& make) {
    const std::string_view bytes(reinterpret_cast<const char*>(&key), sizeof(Key));
    if (auto it = index_.find(bytes); it != index_.end()) {
      ++hits_;
      entries_.splice(entries_.begin(), entries_, it->second);
      return it->second->value;
    }
    ++misses_;
    Value value = make();
    if (entries_.size() >= capacity_) {
      index_.erase(view(entries_.back()));
      entries_.pop_back();
    }
    entries_.push_front(Entry{key, std::move(value)});
    index_.emplace(view(entries_.front()), entries_.begin());
    return entries_.front().value;
  }

  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::uint64_t hits() const noexcept { return hits_; }
  [[nodiscard]] std::uint64_t misses() const noexcept { return misses_; }
  void clear() {
    index_.clear();
    entries_.clear();
  }

 private:
  struct Entry {
    Key key;
    Value value;
  };
  static std::string_view view(const Entry& e) { return {reinterpret_cast<const char*>(&e.key), sizeof(Key)}; }

  std::size_t capacity_;
  std::list<Entry> entries_;  // most recent first; list nodes keep the key bytes at a fixed address
  std::unordered_map<std::string_view, typename std::list<Entry>::iterator> index_;
  std::uint64_t hits_ = 0;
  std::uint64_t misses_ = 0;
};

}  // namespace limbeck
