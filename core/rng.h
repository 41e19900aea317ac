// What this is: counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011).
// Why: the i-th number is a pure function of (seed, stream, i), so results do not depend on threads, ranks, or on how
//      a loop is split, and resuming needs two integers instead of a generator's state.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "core/tensor.h"

namespace limbeck {

/// Four 32-bit random words for one 128-bit counter and a 64-bit key; ten rounds.
[[nodiscard]] std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key) noexcept;

/// Uniform in [0, 1) with 24 random bits.
[[nodiscard]] inline float to_unit_float(std::uint32_t bits) noexcept {
  return static_cast<float>(bits >> 8U) * 0x1.0p-24F;
}

/// A position in the random sequence (seed, stream). Cheap to copy; saved in checkpoints as three integers.
/// Give independent uses (weights, dropout, augmentation of sample k in epoch e) different streams.
class Generator {
 public:
  explicit Generator(std::uint64_t seed = 0, std::uint64_t stream = 0) noexcept : seed_(seed), stream_(stream) {}

  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
  [[nodiscard]] std::uint64_t stream() const noexcept { return stream_; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  void set_offset(std::uint64_t offset) noexcept { offset_ = offset; }

  /// Random word number `offset() + i`; does not move the position. Safe from many threads.
  [[nodiscard]] std::uint32_t word_at(std::uint64_t i) const noexcept;
  /// Reserves `count` numbers for a kernel and returns the position before the call.
  Generator reserve(std::uint64_t count) noexcept {
    Generator here = *this;
    offset_ += count;
    return here;
  }

  // Sequential use: each call moves the position.
  std::uint32_t next_word() noexcept { return word_at_absolute(offset_++); }
  /// Uniform in [0, 1).
  double uniform() noexcept;
  /// Uniform in [low, high).
  double uniform(double low, double high) noexcept { return low + (high - low) * uniform(); }
  /// Uniform integer in [0, bound), without modulo bias worth naming (64-bit multiply-shift).
  std::uint64_t below(std::uint64_t bound) noexcept;
  /// Standard normal (Box-Muller, two words per number).
  double normal() noexcept;

 private:
  [[nodiscard]] std::uint32_t word_at_absolute(std::uint64_t i) const noexcept;
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t offset_ = 0;
};

/// Mixes several integers into one stream number (SplitMix64 finaliser), e.g. mix(epoch, index).
[[nodiscard]] std::uint64_t mix_stream(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0) noexcept;

/// Fills in logical row-major order with uniform numbers in [low, high).
void fill_uniform_(const Tensor& t, Generator& generator, double low, double high);
/// Fills in logical row-major order with normal numbers.
void fill_normal_(const Tensor& t, Generator& generator, double mean, double stddev);

}  // namespace limbeck
