// What this is: sums over a map as a flat array: f32 within runs, f64 across, in blocks whose number depends on the
//   length alone.
// What it is not: for sums per channel or per pixel of other layouts than the flat one.
// Read next: distill/ka_autoencoder_loss_cpu.cpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/parallel.h"

namespace limbeck::distill {

inline constexpr std::int64_t kFlatRun = 1024;  ///< numbers that are added in f32

/// Adds up body(begin, end) over [0, count) in runs of at most kFlatRun numbers; body returns Terms f32 sums.
/// Shapes:   none
template <std::size_t Terms, class Body>
[[nodiscard]] std::array<double, Terms> flat_sums(std::int64_t count, const Body& body) {
  constexpr std::int64_t kMostBlocks = 64;
  const auto add = [&](std::array<double, Terms>& sums, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += kFlatRun) {
      const std::array<float, Terms> run = body(i, std::min(i + kFlatRun, end));
      for (std::size_t k = 0; k < Terms; ++k) sums[k] += static_cast<double>(run[k]);
    }
  };
  std::array<double, Terms> total{};
  if (count <= kFlatRun) {  // one pixel's channels: nothing to share out
    add(total, 0, count);
    return total;
  }
  const std::int64_t blocks = reduction_blocks(count, 16384, kMostBlocks);
  std::array<std::array<double, Terms>, kMostBlocks> partial{};
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      add(partial[static_cast<std::size_t>(b)], count * b / blocks, count * (b + 1) / blocks);
    }
  });
  for (std::int64_t b = 0; b < blocks; ++b) {
    for (std::size_t k = 0; k < Terms; ++k) total[k] += partial[static_cast<std::size_t>(b)][k];
  }
  return total;
}

}  // namespace limbeck::distill
