// What this is: products of channels with channels for bf16 pixels on the matrix units of the processor: K = X X^T and D X.
// What it is not: for other processors or types; distill/channel_gram.h has those, and calls what is here.
// Read next: ops/bf16_channels.cpp, its notes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace limbeck::ops {

/// True where the functions of this file can be called.
/// Shapes:   none
[[nodiscard]] bool bf16_channels_fit() noexcept;

inline constexpr std::int64_t kBf16GramRun = 256;  ///< most pixels of one call of bf16_gram()

/// Scratch that bf16_gram() needs, aligned to 64 bytes.
/// Shapes:   none
[[nodiscard]] std::size_t bf16_gram_bytes(std::int64_t c) noexcept;

/// sums[i][j] = sum_m x[m][i] x[m][j], for j <= i; what else is written lies in the tiles of 16 x 16 on the diagonal.
/// Products are exact; sums are f32, of 32 pixels at a time in the order of the hardware. Numbers below 2^-126 count as 0.
/// Shapes:   x `count` <= kBf16GramRun pixels of c channels; sums [side][side], side = c rounded up to 16
void bf16_gram(const bfloat16* x, std::int64_t count, std::int64_t c, void* scratch, float* sums);

/// Bytes of a packed matrix.
/// Shapes:   none
[[nodiscard]] std::size_t bf16_mix_bytes(std::int64_t c) noexcept;
/// Packs D as the sum of two bf16 matrices, which hold 16 bits of its numbers.
/// Shapes:   d [c][c]; packed [bf16_mix_bytes], aligned to 64 bytes
void bf16_mix_pack(const float* d, std::int64_t c, void* packed);
/// y[m][i] = sum_j d[i][j] x[m][j], sums in f32. Where x or D has a number that is not finite, neighbouring pixels may get NaN too.
/// Shapes:   x, y `count` pixels of c channels; `readable` elements from x on belong to the map
void bf16_mix(const bfloat16* x, std::int64_t count, std::int64_t readable, std::int64_t c, const void* packed,
              bfloat16* y);

}  // namespace limbeck::ops
