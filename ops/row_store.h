// What this is: how a memory-bound kernel writes its output. It computes a row in f32; RowStore rounds it to the output
//   type and, where the tensor is too large for the cache, writes it past the cache.
// Read next: ops/batch_norm_cpu.cpp, which uses it.
//
// Note [rounding in a second loop]
//   With `y[i] = bfloat16(value)` in the kernel's own loop the compiler mixes the integer operations of the rounding
//   with the selects of the kernel (activation, mask), and the loop becomes three times slower. A row buffer in the
//   first-level cache costs nearly nothing.
// Note [streaming]
//   An ordinary store of a line that is not in the cache first reads it from memory. Streaming stores skip that, and
//   leave the inputs of the op in the cache; but the next op must read the output from memory. Measured on batch norm
//   (32 MiB of third-level cache), the next op's read included: even at 4 MiB, 15 to 20 % faster at 8 MiB and above.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/tensor.h"
#include "ops/simd.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace limbeck::ops {

/// Rounds to nearest even. The processor's own instruction, used where it exists, turns denormals (below 1.2e-38) to zero.
/// Shapes: n numbers each
inline void round_row(const float* __restrict in, bfloat16* __restrict out, std::int64_t n) noexcept {
  std::int64_t i = 0;
  for (; i + simd::kLanes <= n; i += simd::kLanes) simd::store(out + i, simd::load(in + i));
  for (; i < n; ++i) out[i] = bfloat16(in[i]);
}

/// memcpy with streaming stores; the lines at both ends that are not covered completely go through the cache.
/// Shapes: bytes
inline void stream_copy(const void* in, void* out, std::size_t bytes) noexcept {
#if defined(__AVX__)
  constexpr std::size_t kLine = 64;
  const auto* from = static_cast<const char*>(in);
  auto* to = static_cast<char*>(out);
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  if (bytes < head + kLine) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::memcpy(to, from, head);
  std::size_t i = head;
  for (; i + kLine <= bytes; i += kLine) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + kLine / 2));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + kLine / 2), b);
  }
  std::memcpy(to + i, from + i, bytes - i);
#else
  std::memcpy(out, in, bytes);
#endif
}

/// Writes the rows of a dense tensor of type T (f32 or bf16). For each row:
///   float* row = store.target(out, buffer);   // compute here, n numbers
///   store.finish(row, out, n);
/// and once per thread, after its last row: store.fence().
/// Shapes: rows of any length; `buffer` holds row_store_floats(longest row) floats
template <class T>
class RowStore {
 public:
  explicit RowStore(const TensorView& output) noexcept
      : stream_(static_cast<std::size_t>(output.numel()) * sizeof(T) >= kStreamBytes) {}

  [[nodiscard]] float* target(T* out, float* buffer) const noexcept {
    if constexpr (std::is_same_v<T, float>) {
      if (!stream_) return out;
    }
    return buffer;
  }

  void finish(float* row, T* out, std::int64_t n) const noexcept {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
    if constexpr (std::is_same_v<T, float>) {
      if (stream_) stream_copy(row, out, bytes);
    } else if (stream_) {
      auto* rounded = reinterpret_cast<bfloat16*>(row + n);
      round_row(row, rounded, n);
      stream_copy(rounded, out, bytes);
    } else {
      round_row(row, out, n);
    }
  }

  /// Streaming stores are not ordered: makes those of this thread visible before the caller signals completion.
  void fence() const noexcept {
#if defined(__AVX__)
    if (stream_) _mm_sfence();
#endif
  }

 private:
  static constexpr std::size_t kStreamBytes = std::size_t{4} << 20U;
  bool stream_;
};

/// Size of the buffer that RowStore needs for rows of up to n numbers.
/// Shapes: none
[[nodiscard]] constexpr std::int64_t row_store_floats(std::int64_t n) noexcept { return n + (n + 1) / 2; }

}  // namespace limbeck::ops
