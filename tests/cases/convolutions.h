// What this is: the shapes that convolutions are tested with, for tests that need them as numbers: what an OpCase is made of, and what
//   the GPU's library is asked about.
#pragma once

#include <vector>

#include "ops/conv2d.h"
#include "ops/conv_transpose2d.h"

namespace limbeck::test {

struct DenseConvolution {
  const char* label;
  Shape x, w;
  bool bias;
  ops::Conv2dOptions options;
};
/// Those of tests/cases/conv2d.cpp.
[[nodiscard]] std::vector<DenseConvolution> dense_convolutions();

struct TransposedConvolution {
  const char* label;
  Shape x, w;
  bool bias;
  ops::ConvTranspose2dOptions options;
};
/// Those of tests/cases/conv_transpose2d.cpp.
[[nodiscard]] std::vector<TransposedConvolution> transposed_convolutions();

}  // namespace limbeck::test
