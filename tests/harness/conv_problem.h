// A convolution to try, for tests that run the same ones through several kernels.
#pragma once

#include "core/shape.h"
#include "ops/conv2d.h"

namespace limbeck::test {

struct ConvProblem {
  const char* label;
  Shape x, w;
  ops::Conv2dOptions options;
};

}  // namespace limbeck::test
