// What this is: the promises that every loss over two maps makes, as checks: exactly zero for equal maps, finite for large
//   numbers, the same for any number of threads, any mix of types, a teacher that is not differentiated.
// Read next: distill/README.md, "What every loss promises".
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/parallel.h"
#include "core/rng.h"
#include "tests/harness/oracle_maps.h"

namespace limbeck::test {

/// loss(student, teacher)
using PairLoss = std::function<Tensor(const Tensor&, const Tensor&)>;

[[nodiscard]] inline Tensor noise_map(const Shape& shape, std::uint64_t seed, double spread) {
  Generator g(seed);
  Tensor t = Tensor::empty(shape);
  fill_normal_(t, g, 0, spread);
  return t;
}

/// Equal maps give value 0 and gradient 0, exactly, in f32, bf16 and f64.
inline void check_zero_for_equal_maps(const PairLoss& loss, const Shape& shape) {
  const Tensor map = noise_map(shape, 7, 3);
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF64}) {
    INFO("type ", std::string(name_of(type)));
    const Tensor t = map.copy_as(type);
    const auto r = differentiate([&](const Tensor& s) { return loss(s, t); }, t);
    CHECK(r.loss == 0.0);
    CHECK(largest_magnitude(r.gradient) == 0.0);
  }
}

/// Numbers of the order of 1e4: finite, and as the reference in f64 has it. Gradients are compared at the scale of their
/// largest element, or of `floor` where saturated probabilities leave less than f32 can say.
inline void check_large_numbers(const PairLoss& loss, const Shape& student, const Shape& teacher,
                                double tolerance = 1e-4, double floor = 0) {
  const Tensor s = noise_map(student, 8, 4000);
  const Tensor t = noise_map(teacher, 9, 4000);
  const auto of = [&](const Tensor& x) { return loss(x, t.copy_as(x.dtype())); };
  const auto fast = differentiate(of, s);
  const auto exact = differentiate(of, s.copy_as(DType::kF64));
  CHECK(std::isfinite(fast.loss));
  CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(tolerance));
  const double scale = std::max(largest_magnitude(exact.gradient), floor);
  CHECK(gap(fast.gradient, exact.gradient) * largest_magnitude(exact.gradient) <= tolerance * scale);
}

/// Bit for bit the same with one and with three threads.
inline void check_threads(const PairLoss& loss, const Shape& student, const Shape& teacher) {
  const int before = max_threads();
  const Tensor s = noise_map(student, 1, 2);
  const Tensor t = noise_map(teacher, 2, 2);
  const auto of = [&](const Tensor& x) { return loss(x, t); };
  set_threads(1);
  const auto one = differentiate(of, s);
  set_threads(3);
  const auto three = differentiate(of, s);
  set_threads(before);
  CHECK(one.loss == three.loss);
  CHECK(one.gradient == three.gradient);
}

/// A bf16 map may meet an f32 map: the value is that of the rounded maps, the gradient has the student's type.
inline void check_mixed_types(const PairLoss& loss, const Shape& student, const Shape& teacher,
                              double tolerance = 1e-4) {
  const Tensor s = noise_map(student, 3, 2).copy_as(DType::kBF16);
  const Tensor t = noise_map(teacher, 4, 2).copy_as(DType::kBF16);
  const double exact = loss(s.copy_as(DType::kF64), t.copy_as(DType::kF64)).item();
  for (const DType a : {DType::kF32, DType::kBF16}) {
    for (const DType b : {DType::kF32, DType::kBF16}) {
      const Tensor leaf = s.copy_as(a);
      leaf.set_requires_grad(true);
      const Tensor value = loss(leaf, t.copy_as(b));
      value.backward();
      CHECK(value.dtype() == DType::kF32);
      CHECK(value.item() == doctest::Approx(exact).epsilon(tolerance));
      CHECK(leaf.grad().dtype() == a);
    }
  }
}

/// NaN in either map shows in the value, wherever it is.
inline void check_nan_shows(const PairLoss& loss, const Shape& shape) {
  const Tensor s = noise_map(shape, 5, 1);
  for (const bool last : {false, true}) {
    CAPTURE(last);
    const Tensor bad = s.copy();
    const auto at = [&](std::size_t dim) { return last ? shape[dim] - 1 : 0; };
    bad.view().at<float>(at(0), at(1), at(2), at(3)) = std::nanf("");
    CHECK(std::isnan(loss(bad, s).item()));
    CHECK(std::isnan(loss(s, bad).item()));
  }
}

/// The teacher must not be differentiated; f64 does not meet f32; maps must not be empty.
inline void check_refusals(const PairLoss& loss) {
  const Tensor s = Tensor::zeros({2, 3, 4, 5});
  const Tensor trained = Tensor::zeros({2, 3, 4, 5});
  trained.set_requires_grad(true);
  CHECK(contains(message_of([&] { return loss(s, trained); }), "teacher requires grad"));
  CHECK(contains(message_of([&] { return loss(s, s.copy_as(DType::kF64)); }), "teacher of type f64"));
  CHECK(contains(message_of([&] { return loss(Tensor::zeros({0, 3, 1, 1}), Tensor::zeros({0, 3, 1, 1})); }), "empty"));
  const auto shapes = message_of([&] { return loss(s, Tensor::zeros({3, 3, 4, 5})); });
  CHECK(contains(shapes, "[3, 3, 4, 5]"));
  CHECK(contains(shapes, "[2, 3, 4, 5]"));
}

/// Value and gradient of the same formula composed of generic ops, in f64, at the oracle's student.
inline void check_composite(const std::function<Tensor(const Tensor&)>& fused,
                            const std::function<Tensor(const Tensor&)>& composite,
                            const Tensor& student = oracle_student()) {
  const auto a = differentiate(fused, student);
  const auto b = differentiate(composite, student);
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-12));
  CHECK(gap(a.gradient, b.gradient) < 1e-12);
}

}  // namespace limbeck::test
