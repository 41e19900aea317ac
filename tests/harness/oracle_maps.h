// What this is: the small student and teacher maps for which the values of all losses are known to 12 digits, and a
//   helper that compares value, gradient norm and first gradient element with such a row.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/autograd.h"
#include "core/tensor.h"
#include "tests/harness/errors.h"

namespace limbeck::test {

/// x[k] = c sin(a k + b) + d cos(0.05 k) with the logical row-major index k; f64.
[[nodiscard]] inline Tensor wave_map(double a, double b, double c, double d, const Shape& shape) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t k = 0; k < values.size(); ++k) {
    const auto x = static_cast<double>(k);
    values[k] = c * std::sin(a * x + b) + d * std::cos(0.05 * x);
  }
  return Tensor::from(values, shape);
}
[[nodiscard]] inline Tensor oracle_student() { return wave_map(0.37, 0.1, 2.0, 0.5, {2, 3, 4, 5}); }
[[nodiscard]] inline Tensor oracle_teacher() { return wave_map(0.23, 1.0, 2.0, -0.5, {2, 3, 4, 5}); }
/// The teacher in the type of the student.
[[nodiscard]] inline Tensor teacher_as(const Tensor& student) { return oracle_teacher().copy_as(student.dtype()); }
/// 30 of 40 pixels are valid, the others 255.
[[nodiscard]] inline Tensor oracle_labels() {
  std::vector<std::uint8_t> ids;
  for (int n = 0; n < 2; ++n) {
    for (int h = 0; h < 4; ++h) {
      for (int w = 0; w < 5; ++w) {
        const int v = (7 * n + 3 * h + 2 * w) % 4;
        ids.push_back(static_cast<std::uint8_t>(v == 3 ? 255 : v));
      }
    }
  }
  return Tensor::from(ids, {2, 4, 5});
}

/// One row of the table: loss, l2 norm of its gradient with respect to the student, first element of that gradient.
struct OracleRow {
  double loss, norm, first;
};

/// Checks `loss(student)` in f64 to 1e-9 and in f32 to 1e-5, relative.
inline void check_oracle(const std::function<Tensor(const Tensor&)>& loss, const OracleRow& row) {
  for (const DType type : {DType::kF64, DType::kF32}) {
    const double tolerance = type == DType::kF64 ? 1e-9 : 1e-5;
    INFO("type ", std::string(name_of(type)));
    const Tensor student = oracle_student().copy_as(type);
    student.set_requires_grad(true);
    const Tensor value = loss(student);
    value.backward();
    const auto g = student.grad().to_vector<double>();
    double squares = 0;
    for (const double v : g) squares += v * v;
    CHECK(std::abs(value.item() - row.loss) <= tolerance * std::abs(row.loss));
    CHECK(std::abs(std::sqrt(squares) - row.norm) <= tolerance * row.norm);
    // One element is compared at the scale of the gradient: its own rounding is that of the largest terms.
    const double scale = type == DType::kF64 ? std::abs(row.first) : row.norm;
    CHECK(std::abs(g[0] - row.first) <= tolerance * scale);
  }
}

/// Value and gradient of `loss` at a copy of `student`.
struct LossAndGradient {
  double loss;
  std::vector<double> gradient;
};
[[nodiscard]] inline LossAndGradient differentiate(const std::function<Tensor(const Tensor&)>& loss,
                                                   const Tensor& student) {
  const Tensor leaf = student.copy();
  leaf.set_requires_grad(true);
  const Tensor value = loss(leaf);
  value.backward();
  return {value.item(), leaf.grad().to_vector<double>()};
}
[[nodiscard]] inline double largest_magnitude(const std::vector<double>& v) {
  double m = 0;
  for (const double x : v) m = std::isnan(x) ? std::nan("") : std::max(m, std::abs(x));
  return m;
}
/// Largest difference relative to the largest magnitude of `b`; NaN and different lengths give infinity.
[[nodiscard]] inline double gap(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    if (!(d >= 0)) return INFINITY;
    worst = std::max(worst, d);
  }
  return worst / std::max(largest_magnitude(b), 1e-300);
}

}  // namespace limbeck::test
