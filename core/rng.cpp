#include "core/rng.h"

#include <cmath>
#include <numbers>

#include "core/parallel.h"

namespace limbeck {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) noexcept {
  constexpr std::uint64_t kMul0 = 0xD2511F53U;
  constexpr std::uint64_t kMul1 = 0xCD9E8D57U;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;  // golden ratio
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;  // sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = kMul0 * c[0];
    const std::uint64_t p1 = kMul1 * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32U) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32U) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

std::uint32_t Generator::word_at_absolute(std::uint64_t i) const noexcept {
  const std::uint64_t block = i / 4;
  const auto words = philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32U),
                                 static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32U)},
                                {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32U)});
  return words[i % 4];
}

std::uint32_t Generator::word_at(std::uint64_t i) const noexcept { return word_at_absolute(offset_ + i); }

double Generator::uniform() noexcept {
  const std::uint64_t high = next_word() >> 5U;  // 27 bits
  const std::uint64_t low = next_word() >> 6U;   // 26 bits
  return static_cast<double>((high << 26U) | low) * 0x1.0p-53;
}

std::uint64_t Generator::below(std::uint64_t bound) noexcept {
  const std::uint64_t high = next_word();
  const std::uint64_t word = (high << 32U) | next_word();
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(word) * bound) >> 64U);
}

namespace {

/// Box-Muller from two words; the first is kept away from 0 so that the logarithm is finite.
double normal_from(std::uint32_t a, std::uint32_t b) noexcept {
  const double u = (static_cast<double>(a) + 1.0) * 0x1.0p-32;
  const double v = static_cast<double>(b) * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

/// Applies `value(i)` to the logical row-major index i of every element.
template <class Value>
void fill_by_index(const Tensor& t, const Value& value) {
  if (t.device().is_meta()) return;
  // Fill a row-major buffer, then let copy_tensor bring it into the tensor's layout, type and device.
  const Tensor flat = Tensor::empty_strided(t.shape(), row_major_strides(t.shape()), DType::kF64);
  auto* p = flat.data<double>();
  parallel_for(t.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) p[i] = value(static_cast<std::uint64_t>(i));
  });
  copy_tensor(flat, t);
  t.bump_version();
}

}  // namespace

double Generator::normal() noexcept {
  const std::uint32_t a = next_word();
  return normal_from(a, next_word());
}

std::uint64_t mix_stream(std::uint64_t a, std::uint64_t b, std::uint64_t c) noexcept {
  const auto finalise = [](std::uint64_t z) {
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  };
  constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;
  return finalise(finalise(finalise(a + kGolden) + b + kGolden) + c + kGolden);
}

void fill_uniform_(const Tensor& t, Generator& generator, double low, double high) {
  const Generator here = generator.reserve(static_cast<std::uint64_t>(t.numel()));
  fill_by_index(
      t, [&](std::uint64_t i) { return low + (high - low) * static_cast<double>(to_unit_float(here.word_at(i))); });
}

void fill_normal_(const Tensor& t, Generator& generator, double mean, double stddev) {
  const Generator here = generator.reserve(2 * static_cast<std::uint64_t>(t.numel()));
  fill_by_index(
      t, [&](std::uint64_t i) { return mean + stddev * normal_from(here.word_at(2 * i), here.word_at(2 * i + 1)); });
}

}  // namespace limbeck
