// What this is: the element types of a tensor and the bfloat16 value type.
// Read next: core/shape.h.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "core/error.h"

namespace limbeck {

/// Brain floating point: the upper 16 bits of an IEEE binary32 (8 exponent bits, 7 stored mantissa bits).
/// Conversion from float rounds to nearest even; NaN stays NaN. Constexpr, so that CUDA code may assign it too.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  bfloat16(const bfloat16&) = default;
  bfloat16& operator=(const bfloat16&) = default;
  /// Stores a computed value, `y[i] = bfloat16(v)`, as a plain integer: g++ 12 does not vectorise a loop that copies a
  /// struct. A template, because a user-written copy assignment would cost the type its trivial copyability.
  template <class T>
  requires std::same_as<std::remove_cvref_t<T>, bfloat16>
  constexpr bfloat16& operator=(T&& value) noexcept {
    bits = value.bits;
    return *this;
  }
  explicit constexpr bfloat16(float value) noexcept {
    const auto u = std::bit_cast<std::uint32_t>(value);
    // The branch-free form vectorises: NaN payloads are forced to a quiet NaN by the select.
    const std::uint32_t rounded = (u + 0x7FFFU + ((u >> 16U) & 1U)) >> 16U;
    const bool is_nan = (u & 0x7FFFFFFFU) > 0x7F800000U;
    bits = static_cast<std::uint16_t>(is_nan ? ((u >> 16U) | 0x40U) : rounded);
  }
  explicit constexpr operator float() const noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
};
static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);

/// Element type. `kF64` exists only for reference kernels and gradient checks.
enum class DType : std::uint8_t { kF32, kF64, kBF16, kI64, kI32, kU8, kBool };

[[nodiscard]] constexpr std::size_t size_of(DType t) noexcept {
  switch (t) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kF64:
    case DType::kI64: return 8;
    case DType::kBF16: return 2;
    case DType::kU8:
    case DType::kBool: return 1;
  }
  return 0;
}

[[nodiscard]] constexpr std::string_view name_of(DType t) noexcept {
  switch (t) {
    case DType::kF32: return "f32";
    case DType::kF64: return "f64";
    case DType::kBF16: return "bf16";
    case DType::kI64: return "i64";
    case DType::kI32: return "i32";
    case DType::kU8: return "u8";
    case DType::kBool: return "bool";
  }
  return "?";
}

[[nodiscard]] constexpr bool is_floating(DType t) noexcept {
  return t == DType::kF32 || t == DType::kF64 || t == DType::kBF16;
}

/// C++ type -> DType, e.g. `dtype_of<float> == DType::kF32`.
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls `f(T{})` with the C++ type behind `t`; `f` is usually a generic lambda.
template <class F>
decltype(auto) visit_dtype(DType t, F&& f) {
  switch (t) {
    case DType::kF32: return f(float{});
    case DType::kF64: return f(double{});
    case DType::kBF16: return f(bfloat16{});
    case DType::kI64: return f(std::int64_t{});
    case DType::kI32: return f(std::int32_t{});
    case DType::kU8: return f(std::uint8_t{});
    case DType::kBool: return f(bool{});
  }
  fail("dtype", "unknown element type {}", static_cast<int>(t));
}

/// As visit_dtype, restricted to f32 and f64 (reference kernels) .
template <class F>
decltype(auto) visit_reference_dtype(std::string_view where, DType t, F&& f) {
  if (t == DType::kF32) return f(float{});
  if (t == DType::kF64) return f(double{});
  fail(where, "reference kernel got {}, expected f32 or f64; cast first", name_of(t));
}

/// As visit_dtype, restricted to f32 and bf16 (fast kernels).
template <class F>
decltype(auto) visit_fast_dtype(std::string_view where, DType t, F&& f) {
  if (t == DType::kF32) return f(float{});
  if (t == DType::kBF16) return f(bfloat16{});
  fail(where, "fast kernel got {}, expected f32 or bf16", name_of(t));
}

}  // namespace limbeck
