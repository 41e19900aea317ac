// What this is: matrix products between maps whose channels are cut into panels: A^T B over positions (sums end in f64)
//   and A B with a small matrix B. Built on the tiles of the convolutions (ops/tile_gemm.h).
// What it is not: a general matrix product (ops/matmul.h). Results here do not depend on the number of threads, because
//   threads share out the elements of the result.
// Read next: distill/position_affinity_cpu.cpp.
//
// Note [panels of a map]
//   Panel p of a stretch of `rows` positions holds channels [p kWidth, (p + 1) kWidth) of each, [rows][kWidth]. A
//   product over positions reads two panels from end to end; a product over channels takes kWidth channels of a
//   position at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/tile_gemm.h"

namespace limbeck::distill {

inline constexpr std::int64_t kWidth = ops::tile::kColumns;  ///< channels of a panel

/// Panels that hold `channels` channels.
/// Shapes:   none
[[nodiscard]] inline std::int64_t panel_count(std::int64_t channels) noexcept {
  return (channels + kWidth - 1) / kWidth;
}

/// sums += A^T B.
/// Shapes:   a, b one panel each, [rows][kWidth]; sums [kWidth][kWidth] with `stride` numbers from row to row
inline void add_panel_product(const float* a, const float* b, std::int64_t rows, double* sums, std::int64_t stride) {
  alignas(64) float tile[ops::tile::kRows * kWidth];
  for (std::int64_t i = 0; i < kWidth; i += ops::tile::kRows) {
    const std::int64_t count = std::min<std::int64_t>(ops::tile::kRows, kWidth - i);
    ops::tile::OuterKernels<float>::wide[static_cast<std::size_t>(count - 1)](a + i, kWidth, b, kWidth, rows, false,
                                                                              tile, kWidth, kWidth);
    for (std::int64_t r = 0; r < count; ++r) {
      double* out = sums + (i + r) * stride;
      const float* in = tile + r * kWidth;
#pragma omp simd
      for (std::int64_t j = 0; j < kWidth; ++j) out[j] += static_cast<double>(in[j]);
    }
  }
}

/// y = A B.
/// Shapes:   a `panels` panels of `rows` positions, `panel_step` numbers from panel to panel; b [columns / kWidth]
///           panels of [panels kWidth][kWidth]; y [rows][columns], columns a multiple of kWidth
inline void multiply_panels(const float* a, std::int64_t panels, std::int64_t panel_step, std::int64_t rows,
                            const float* b, std::int64_t columns, float* y) {
  PooledVector<ops::tile::Segment> segments;
  for (std::int64_t p = 0; p < panels; ++p) segments.push_back({p * panel_step, p * kWidth, kWidth});
  std::int64_t offsets[ops::tile::kRows];
  for (std::int64_t i = 0; i < ops::tile::kRows; ++i) offsets[i] = i * columns;
  const std::int64_t blocks = (rows + ops::tile::kRows - 1) / ops::tile::kRows;
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t q = 0; q < columns / kWidth; ++q) {
      for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t row = block * ops::tile::kRows;
        const std::int64_t count = std::min<std::int64_t>(ops::tile::kRows, rows - row);
        ops::tile::Finish<float> finish;
        finish.y = y + row * columns + q * kWidth;
        finish.row_offset = offsets;
        ops::tile::Kernels<float>::wide[static_cast<std::size_t>(count - 1)](
            a + row * kWidth, kWidth, b + q * panels * kWidth * kWidth, segments.data(), segments.size(), finish);
      }
    }
  });
}

}  // namespace limbeck::distill
