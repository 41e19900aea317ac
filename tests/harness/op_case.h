// What this is: the one list that drives every check of an op. A family provides OpCases; check_case() runs each through
//   1 f64 gradient check            5 row-major and strided inputs
//   2 f32 reference against f64     6 NaN-poisoned memory
//   3 f32 fast kernel against f64   7 bitwise repeatability
//   4 bf16 fast kernel against f64  8 shapes on the meta device
// ("against f64" compares the value and every gradient with the double reference on the same, rounded inputs).
// To add an op: write tests/cases/<family>.cpp, add its name to the list in tests/cases/all_cases.h.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::test {

struct OpCase {
  std::string op;     ///< name as in ops/catalogue.h
  std::string label;  ///< what is special here, e.g. "3x3 stride 2 dilation 2"
  /// f64 tensors (differentiable unless in `fixed`) and integer tensors.
  std::function<std::vector<Tensor>(Generator&)> inputs;
  /// Must accept f64, f32 and, if `bf16`, bf16 inputs; deterministic.
  std::function<Tensor(std::span<const Tensor>)> forward;
  std::vector<std::size_t> fixed = {};  ///< floating inputs without gradient
  double f32_tolerance = 1e-5;          ///< max|a - b| / max(max|b|, 1e-6), value and gradients
  double bf16_tolerance = 2e-2;
  bool bf16 = true;
  bool differentiable = true;
  bool check_derivative = true;            ///< false: the gradient is not meant to be the derivative of the value
  bool kinks = false;                      ///< skip elements where the function has a corner
  bool meta = true;                        ///< runs without data
  std::vector<std::size_t> keep_f32 = {};  ///< inputs that stay f32 when the others become bf16 (master weights)
};

/// Standard normal numbers, f64.
[[nodiscard]] Tensor random_normal(Generator& g, const Shape& shape);
/// Uniform numbers in [low, high), f64.
[[nodiscard]] Tensor random_uniform(Generator& g, const Shape& shape, double low, double high);
/// Class ids 0..classes-1 as u8; about `ignore_share` of them 255.
[[nodiscard]] Tensor random_labels(Generator& g, const Shape& shape, std::int64_t classes, double ignore_share = 0.1);

/// Largest difference relative to the largest magnitude of `expected`; infinity if shapes differ or a value is NaN.
[[nodiscard]] double relative_error(const Tensor& actual, const Tensor& expected);

/// Runs every check on `c`, reporting through doctest.
void check_case(const OpCase& c);
/// Compares the kernels of `device` with the f64 reference on the CPU: checks 3 to 7 of the list above.
void check_case_on(Device device, const OpCase& c);
/// check_case on all of them.
void check_cases(const std::vector<OpCase>& cases);

}  // namespace limbeck::test
