// Inputs for modules and networks.
#pragma once

#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::test {

/// Standard normal numbers, f32.
inline Tensor random_input(const Shape& shape, std::uint64_t seed = 1) {
  Generator g(seed);
  const Tensor x = Tensor::empty(shape);
  fill_normal_(x, g, 0.0, 1.0);
  return x;
}

}  // namespace limbeck::test
