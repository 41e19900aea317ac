// A convolution to try, its inputs, and what must come out, for tests that run the same ones through several kernels.
#pragma once

#include <cmath>

#include "ops/activation.h"
#include "ops/conv2d.h"
#include "tests/harness/op_case.h"

namespace limbeck::test {

struct ConvProblem {
  const char* label;
  Shape x, w;
  ops::Conv2dOptions options;
};

/// act(conv2d(x, w) + b + residual) in f64; b and residual may be undefined.
inline Tensor conv_truth(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual,
                         const ops::Conv2dOptions& options, ops::Activation act) {
  Tensor y = ops::conv2d(x, w, b, options);
  auto* values = y.data<double>();
  const Tensor r = residual.defined() ? residual.dense() : Tensor();
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    values[i] = ops::activate(act, values[i] + (r.defined() ? r.data<double>()[i] : 0.0));
  }
  return y;
}

/// Normal numbers in f64 that bf16 holds, too, so that kernels of all types see the same.
inline Tensor rounded_normal(Generator& g, const Shape& shape) {
  return random_normal(g, shape).copy_as(DType::kBF16).copy_as(DType::kF64);
}

/// Weights such that results are of the order of `gain`, as in a network (ReLU6 would clip most of larger ones).
inline Tensor rounded_weights(Generator& g, const Shape& shape, double gain = 1.0) {
  const double scale = gain / std::sqrt(static_cast<double>(shape[1] * shape[2] * shape[3]));
  const Tensor w = random_normal(g, shape);
  auto* values = w.data<double>();
  for (std::int64_t i = 0; i < w.numel(); ++i) values[i] *= scale;
  return w.copy_as(DType::kBF16).copy_as(DType::kF64);
}

}  // namespace limbeck::test
