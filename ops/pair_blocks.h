// What this is: how convolutions that work on pairs of tiles (32 pixels) and panels (32 results) are cut into tasks, and the loop over a
//   task; the kernels for bf16, f32 and int8 share it.
// What it is not: gathering and products, which differ between them.
// Read next: ops/conv2d_amx.cpp, Note [blocks].
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"
#include "ops/task_queue.h"

namespace limbeck::ops {

/// Sizes of one convolution in these units; a chunk is a step of its sums.
/// Shapes:   none
struct PairWork {
  std::int64_t pairs, chunks, panels;
  std::int64_t pair_bytes;   ///< of all gathered chunks of a pair
  std::int64_t chunk_bytes;  ///< of one of them
  std::int64_t spare = 0;    ///< chunks for which there must be room besides
  bool may_part = true;      ///< the sum can be cut into parts
};

/// A task is a block of pairs times a range of panels. Where the pixels of a block would not stay in cache, the sum is cut into
/// parts, and the sums wait in memory between them.
/// Shapes:   none
struct PairBlocks {
  static constexpr std::int64_t kMostPairs = 32;  ///< in a block

  std::int64_t pairs, chunks, panels;
  std::int64_t block;  ///< pairs in a block
  std::int64_t blocks;
  std::int64_t ranges;  ///< of panels
  std::int64_t part;    ///< chunks
  std::int64_t parts;
  std::int64_t kept;  ///< sums of a pair and a panel that wait at the same time, at least 1

  explicit PairBlocks(const PairWork& work) : pairs(work.pairs), chunks(work.chunks), panels(work.panels) {
    constexpr std::int64_t kPixelBytes = 768 << 10;  // of gathered pixels: they stay in the second-level cache
    constexpr std::int64_t kWaitingBytes = 768 << 10;
    constexpr std::int64_t kSumBytes = std::int64_t{32} * 32 * 4;  // of a pair and a panel
    constexpr std::int64_t kFewPairs = 8;
    const std::int64_t threads = max_threads();
    block = std::min(pairs, kMostPairs);
    // Small sums: all of it at once, in blocks that fill the cache.
    const std::int64_t whole = kPixelBytes / work.pair_bytes;
    if (whole >= std::min(kFewPairs, block)) block = std::min(block, whole);
    block = std::clamp<std::int64_t>(pairs / (2 * threads), std::min<std::int64_t>(pairs, 4), block);
    part = chunks;
    if (work.may_part && block * work.pair_bytes > kPixelBytes) {
      const std::int64_t fits = std::max<std::int64_t>(1, kPixelBytes / (block * work.chunk_bytes) - work.spare);
      const std::int64_t least = (chunks + fits - 1) / fits;
      part = (chunks + least - 1) / least;
    }
    parts = (chunks + part - 1) / part;
    blocks = (pairs + block - 1) / block;
    ranges = blocks < threads ? (threads + blocks - 1) / blocks : 1;
    if (parts > 1) ranges = std::max(ranges, (block * panels * kSumBytes + kWaitingBytes - 1) / kWaitingBytes);
    ranges = std::min(ranges, panels);
    kept = parts > 1 ? block * ((panels + ranges - 1) / ranges) : 1;
  }

  /// gather(memory, i, pair, first, last) makes chunks [first, last) of a pair ready as number i of its block;
  /// multiply(memory, i, pair, panel, sums, k) adds part k of the sum, for the last of which k + 1 == parts, to the sums with number
  /// `sums` < kept. `make_memory()` runs once per thread.
  template <class MakeMemory, class Gather, class Multiply>
  void run(const MakeMemory& make_memory, const Gather& gather, const Multiply& multiply) const {
    parallel_tasks_with(blocks * ranges, make_memory, [&](auto& memory, std::int64_t task) {
      const std::int64_t first = task / ranges * block;
      const std::int64_t count = std::min(block, pairs - first);
      const std::int64_t range = task % ranges;
      const std::int64_t panel0 = panels * range / ranges;
      const std::int64_t panel1 = panels * (range + 1) / ranges;
      for (std::int64_t k = 0; k < parts; ++k) {
        for (std::int64_t i = 0; i < count; ++i) {
          gather(memory, i, first + i, k * part, std::min(chunks, (k + 1) * part));
        }
        for (std::int64_t p = panel0; p < panel1; ++p) {
          for (std::int64_t i = 0; i < count; ++i) {
            multiply(memory, i, first + i, p, parts > 1 ? (p - panel0) * block + i : 0, k);
          }
        }
      }
    });
  }
};

}  // namespace limbeck::ops
