// What this is: sizes and strides of a tensor, stored inline (no heap), at most kMaxDims entries.
// Read next: core/tensor.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>

#include "core/error.h"

namespace limbeck {

inline constexpr std::size_t kMaxDims = 6;

/// A short list of int64: the shape (logical sizes) or the strides (in elements) of a tensor.
/// A 4-D shape is always logical N, C, H, W, whatever the physical order.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes) : count_(sizes.size()) {
    LIMBECK_CHECK(sizes.size() <= kMaxDims, "shape", "{} dimensions, at most {} are supported", sizes.size(), kMaxDims);
    for (std::size_t i = 0; i < count_; ++i) values_[i] = sizes[i];
  }

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::int64_t operator[](std::size_t i) const noexcept { return values_[i]; }
  [[nodiscard]] std::int64_t& operator[](std::size_t i) noexcept { return values_[i]; }
  [[nodiscard]] const std::int64_t* begin() const noexcept { return values_.data(); }
  [[nodiscard]] const std::int64_t* end() const noexcept { return values_.data() + count_; }
  [[nodiscard]] std::int64_t* begin() noexcept { return values_.data(); }
  [[nodiscard]] std::int64_t* end() noexcept { return values_.data() + count_; }
  void push_back(std::int64_t v) {
    LIMBECK_CHECK(count_ < kMaxDims, "shape", "more than {} dimensions", kMaxDims);
    values_[count_++] = v;
  }
  void resize(std::size_t n) {
    LIMBECK_CHECK(n <= kMaxDims, "shape", "more than {} dimensions", kMaxDims);
    for (std::size_t i = count_; i < n; ++i) values_[i] = 0;
    count_ = n;
  }
  /// Product of all entries; 1 for a scalar.
  [[nodiscard]] std::int64_t numel() const noexcept {
    std::int64_t n = 1;
    for (const auto v : *this) n *= v;
    return n;
  }
  [[nodiscard]] std::span<const std::int64_t> span() const noexcept { return {values_.data(), count_}; }
  /// "[2, 3, 4, 5]"
  [[nodiscard]] std::string to_string() const;

  friend bool operator==(const Shape& a, const Shape& b) noexcept {
    if (a.count_ != b.count_) return false;
    for (std::size_t i = 0; i < a.count_; ++i) {
      if (a.values_[i] != b.values_[i]) return false;
    }
    return true;
  }

 private:
  std::array<std::int64_t, kMaxDims> values_{};
  std::size_t count_ = 0;
};

using Strides = Shape;

/// Sorts dimension numbers by falling stride, equal ones in their order. (std::stable_sort allocates.)
inline void sort_by_stride(std::span<std::size_t> dims, const Strides& strides) noexcept {
  for (std::size_t i = 1; i < dims.size(); ++i) {
    for (std::size_t k = i; k > 0 && strides[dims[k - 1]] < strides[dims[k]]; --k) std::swap(dims[k - 1], dims[k]);
  }
}

/// Row-major strides (last dimension fastest).
[[nodiscard]] Strides row_major_strides(const Shape& shape);
/// Channels-last strides of a logical NCHW shape: physical N, H, W, C.
[[nodiscard]] Strides channels_last_strides(const Shape& shape);
/// The dense layout limbeck allocates: channels-last for 4-D, row-major otherwise.
[[nodiscard]] Strides default_strides(const Shape& shape);
/// NumPy broadcasting of two shapes; throws naming `where` and both shapes if they do not match.
[[nodiscard]] Shape broadcast_shapes(std::string_view where, const Shape& a, const Shape& b);

}  // namespace limbeck

// Takes no format specification. (Inheriting fmt's parser makes g++ 12 warn about a loop inside it.)
template <>
struct fmt::formatter<limbeck::Shape> {
  constexpr auto parse(fmt::format_parse_context& ctx) const { return ctx.begin(); }
  auto format(const limbeck::Shape& s, fmt::format_context& ctx) const {
    const std::string text = s.to_string();
    return std::copy(text.begin(), text.end(), ctx.out());
  }
};
