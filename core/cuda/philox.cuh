// What this is: the random numbers of core/rng.h inside kernels: the same words as on the CPU.
#pragma once

#include "core/cuda/kernel.cuh"
#include "core/rng.h"
#include "core/step_graph.h"

namespace limbeck::cuda {

/// Word `index` of a sequence: Philox 4x32-10 as in core/rng.cpp; tests compare the two.
__device__ inline unsigned random_word(unsigned long long index, unsigned long long stream, unsigned long long seed) {
  const unsigned long long counter = index / 4;
  auto c0 = static_cast<unsigned>(counter);
  auto c1 = static_cast<unsigned>(counter >> 32U);
  auto c2 = static_cast<unsigned>(stream);
  auto c3 = static_cast<unsigned>(stream >> 32U);
  auto k0 = static_cast<unsigned>(seed);
  auto k1 = static_cast<unsigned>(seed >> 32U);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53U, c0);
    const unsigned low0 = 0xD2511F53U * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57U, c2);
    const unsigned low1 = 0xCD9E8D57U * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const auto word = static_cast<unsigned>(index % 4);
  return word == 0 ? c0 : (word == 1 ? c1 : (word == 2 ? c2 : c3));
}

/// The words of a generator from its position on. In a step that is recorded, its stream must have been named
/// (StepGraph::random_stream); a replay then draws from the stream of its own step.
class RandomWords {
 public:
  explicit RandomWords(const Generator& g)
      : offset_(g.offset()),
        stream_(g.stream()),
        seed_(g.seed()),
        recorded_(StepGraph::current() == nullptr ? nullptr : StepGraph::current()->find_stream(g.stream())) {}

  __device__ unsigned at(unsigned long long index) const {
    return random_word(offset_ + index, recorded_ == nullptr ? stream_ : *recorded_, seed_);
  }
  /// Number `index` of a sequence of Generator::uniform(), which takes two words each, in units of 2^-53.
  __device__ unsigned long long uniform_at(unsigned long long index) const {
    const unsigned long long high = at(2 * index) >> 5U;
    return high << 26U | at(2 * index + 1) >> 6U;
  }

 private:
  unsigned long long offset_, stream_, seed_;
  const std::uint64_t* recorded_;
};

}  // namespace limbeck::cuda
