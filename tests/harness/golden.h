// The C++ half of tests/golden/formula.py: numbers that Python and C++ compute alike, so that fixtures hold no weights.
// Element i of a tensor called NAME is u = (splitmix64(fnv1a64(NAME) + (i + 1) * GOLDEN) >> 40) * 2^-24, scaled.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace limbeck::test {

inline std::uint64_t fnv1a64(std::string_view text) noexcept {
  std::uint64_t h = 0xCBF29CE484222325U;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return h;
}

/// Row-major values in [low, high).
inline std::vector<double> golden_uniform(std::string_view name, std::int64_t count, double low, double high) {
  std::vector<double> out(static_cast<std::size_t>(count));
  std::uint64_t state = fnv1a64(name);
  for (auto& v : out) {
    state += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    z ^= z >> 31U;
    v = low + (high - low) * (static_cast<double>(z >> 40U) * 0x1p-24);
  }
  return out;
}

/// The initial value of a parameter: kaiming-uniform for convolutions, near 1 or 0 for vectors; rounded to f32.
inline std::vector<float> golden_parameter(const std::string& name, const Shape& shape) {
  double low = -0.1;
  double high = 0.1;
  if (shape.size() == 4 || shape.size() == 2) {
    const auto fan_in = static_cast<double>(shape.numel() / shape[0]);
    high = std::sqrt((shape.size() == 4 ? 6.0 : 3.0) / fan_in);
    low = -high;
  } else if (name.ends_with("weight")) {
    low = 0.75;
    high = 1.25;
  }
  const auto exact = golden_uniform(name, shape.numel(), low, high);
  return {exact.begin(), exact.end()};
}

/// Dot product with a fixed random direction: one number that depends on every element.
inline double golden_projection(const std::string& name, const Tensor& t) {
  const auto values = t.to_vector<double>();
  const auto direction = golden_uniform("projection:" + name, t.numel(), -1.0, 1.0);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * direction[i];
  return sum;
}

inline double golden_norm(const Tensor& t) {
  double sum = 0;
  for (const double v : t.to_vector<double>()) sum += v * v;
  return std::sqrt(sum);
}

}  // namespace limbeck::test
