// What this is: how the fast batch norm of the CPU cuts a channels-last map into rows that fill vector registers, and into blocks for
//   threads; what its forward and backward passes share.
// Read next: ops/batch_norm_cpu.cpp.
//
// Note [lanes]
//   A channels-last map is a matrix of N*H*W rows and C columns. With 11 or 24 columns the loop over a row would be too
//   short for vector registers, so `fold` neighbouring rows are treated as one row of fold*C lanes, and the per-channel
//   numbers are repeated fold times. The rows left over fill the first lanes of a last, shorter row.
// Note [blocks]
//   Rows are cut into blocks by the problem size alone. Each block leaves its sums in its own place, and they are added
//   in block order, so results do not depend on the number of threads. f32 sums run over at most kRun lane rows before they
//   move into f64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "core/memory.h"
#include "core/parallel.h"
#include "ops/batch_norm_kernels.h"
#include "ops/row_store.h"

namespace limbeck::ops::batch_norm_lanes {

/// Lane rows whose sums stay in f32.
inline constexpr std::int64_t kRun = 128;

/// How a map is cut into lanes and blocks.
/// Shapes:   x [N,C,H,W] or [N,C], dense
struct Plan {
  std::int64_t rows, channels, fold, lanes, blocks;

  explicit Plan(const TensorView& x) : rows(x.numel() / x.shape[1]), channels(x.shape[1]), fold(1) {
    constexpr std::int64_t kVector = 32;  // bf16 lanes of a 512-bit register
    constexpr std::int64_t kEnoughLanes = 192;
    constexpr std::int64_t kMostLanes = 1024;
    constexpr std::int64_t kBlockElements = 32768;
    fold = kVector / std::gcd(channels, kVector);
    if (fold * channels > kMostLanes) fold = 1;
    while (fold * channels < kEnoughLanes) fold *= 2;
    lanes = fold * channels;
    blocks = std::clamp<std::int64_t>(rows / fold, 1, reduction_blocks(x.numel(), kBlockElements));
  }
  /// First element of block b: the start of a lane row, so that streaming stores are aligned.
  [[nodiscard]] std::int64_t first(std::int64_t b) const {
    return b == blocks ? rows * channels : rows / fold * b / blocks * lanes;
  }
};

/// A block: `whole` lane rows from element `begin` on, followed by `tail` lanes.
/// Shapes:   none
struct Span {
  std::int64_t begin, whole, tail;
  Span(const Plan& p, std::int64_t block)
      : begin(p.first(block)),
        whole((p.first(block + 1) - begin) / p.lanes),
        tail(p.first(block + 1) - begin - whole * p.lanes) {}
};

/// Repeats row r of an f32 tensor over the lanes.
/// Shapes:   t [R,C]; out [lanes]
inline void repeat(const TensorView& t, std::int64_t r, const Plan& p, float* out) {
  const float* row = t.ptr<float>() + r * p.channels;
  for (std::int64_t f = 0; f < p.fold; ++f) std::copy_n(row, p.channels, out + f * p.channels);
}

/// Adds the lanes of s1 and s2 to the channels of sums[0..C) and sums[C..2C), and clears them.
/// Shapes:   s1, s2 [lanes]; sums [2,C]
inline void flush(const Plan& p, float* __restrict s1, float* __restrict s2, double* __restrict sums) {
  for (std::int64_t f = 0; f < p.fold; ++f) {
    for (std::int64_t c = 0; c < p.channels; ++c) {
      sums[c] += static_cast<double>(s1[f * p.channels + c]);
      sums[p.channels + c] += static_cast<double>(s2[f * p.channels + c]);
    }
  }
  std::fill_n(s1, p.lanes, 0.0F);
  std::fill_n(s2, p.lanes, 0.0F);
}

/// Writes `output` row by row; compute(first element, number of lanes, float* row) fills one lane row.
/// Shapes:   output as the map of the plan
template <class T, class Compute>
void write_rows(const Plan& p, const TensorView& output, const Compute& compute) {
  const RowStore<T> store(output);
  parallel_for(p.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace buffer(static_cast<std::size_t>(row_store_floats(p.lanes)) * sizeof(float));
    for (std::int64_t first = p.first(begin); first < p.first(end); first += p.lanes) {
      const std::int64_t lane_count = std::min(p.lanes, p.first(end) - first);
      T* out = output.ptr<T>() + first;
      float* row = store.target(out, buffer.as<float>());
      compute(first, lane_count, row);
      store.finish(row, out, lane_count);
    }
    store.fence();
  });
}

/// The activation as a compile-time constant, so that the compiler sees a loop without branches.
/// Shapes:   none
template <class F>
void visit_activation(Activation act, F&& f) {
  switch (act) {
    case Activation::kNone: return f.template operator()<Activation::kNone>();
    case Activation::kRelu: return f.template operator()<Activation::kRelu>();
    case Activation::kRelu6: return f.template operator()<Activation::kRelu6>();
  }
}

/// A row pointer that stays null where the tensor is undefined.
/// Shapes:   any
template <class T>
T* at(const TensorView& v, std::int64_t element) {
  return v.defined() ? v.ptr<T>() + element : nullptr;
}

}  // namespace limbeck::ops::batch_norm_lanes
