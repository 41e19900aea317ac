// What this is: one loop over many tensors, split into equal chunks, so that an optimizer step is a single parallel
//   region however many small batch-norm vectors a network has.
// What it is not: public; optimizers, clipping and averaging use it.
//
// Note [fixed chunks]
//   Chunk borders depend on the sizes alone, never on the thread count. Elementwise updates are then bitwise repeatable
//   even where the compiler treats the last few elements of a range differently, and sums over chunks are added in
//   chunk order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/parallel.h"

namespace limbeck::nn {

/// A piece of one tensor of a list.
struct Chunk {
  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

inline constexpr std::int64_t kChunkElements = 16384;

/// Adds the chunks of list entry `tensor`, which has `total` elements.
/// Shapes: any; a tensor is cut as a flat array
inline void append_chunks(std::vector<Chunk>& chunks, std::size_t tensor, std::int64_t total) {
  for (std::int64_t begin = 0; begin < total; begin += kChunkElements) {
    chunks.push_back({tensor, begin, std::min(kChunkElements, total - begin)});
  }
}

/// Calls body(chunk index, chunk) for all chunks on all threads.
/// Shapes: those of append_chunks
template <class Body>
void for_each_chunk(std::span<const Chunk> chunks, const Body& body) {
  // A chunk takes about 10 us; two of them are worth a thread.
  parallel_for(static_cast<std::int64_t>(chunks.size()), 2, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto index = static_cast<std::size_t>(i);
      body(index, chunks[index]);
    }
  });
}

}  // namespace limbeck::nn
