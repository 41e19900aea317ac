// Cross entropy: oracles, agreement with generic ops, the mean over valid pixels, bad labels.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "core/rng.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using ops::cross_entropy;
using ops::CrossEntropyOptions;

namespace {

Tensor three_weights() { return Tensor::from(std::vector<double>{0.5, 1.0, 2.0}, {3}); }

/// 1 where the label is the class, 0 elsewhere and at ignored pixels; [2,3,4,5].
Tensor one_hot(const Tensor& labels) {
  const auto ids = labels.to_vector<int>();
  std::vector<double> out(2 * 3 * 4 * 5, 0.0);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != 255) out[(i / 20 * 3 + static_cast<std::size_t>(ids[i])) * 20 + i % 20] = 1.0;
  }
  return Tensor::from(out, {2, 3, 4, 5});
}

}  // namespace

TEST_CASE("cross_entropy: oracles") {
  const Tensor labels = oracle_labels();
  check_oracle([&](const Tensor& s) { return cross_entropy(s, labels); },
               {1.51530530073211, 0.169945026953716, -0.0285445908211409});
  // The recipe that divides the mean by the batch size once more; also: a factor behind the loss reaches the gradient.
  check_oracle([&](const Tensor& s) { return ops::mul_scalar(cross_entropy(s, labels), 0.5); },
               {0.757652650366055, 0.084972513476858, -0.0142722954105705});
  check_oracle([&](const Tensor& s) { return cross_entropy(s, labels, {.class_weights = three_weights()}); },
               {1.34140149215139, 0.170491647276356, -0.0122333960662033});
  check_oracle([&](const Tensor& s) { return cross_entropy(s, labels, {.label_smoothing = 0.1}); },
               {1.52203180729169, 0.157340315296935, -0.0263223685989187});
  check_oracle(
      [&](const Tensor& s) {
        return cross_entropy(s, labels, {.class_weights = three_weights(), .label_smoothing = 0.1});
      },
      {1.36000082359677, 0.158079147104492, -0.0110073726845542});
}

TEST_CASE("cross_entropy: value and gradient of the composite of generic ops, in f64") {
  const Tensor labels = oracle_labels();
  const Tensor target = one_hot(labels);
  check_composite(
      [&](const Tensor& x) { return cross_entropy(x, labels); },
      [&](const Tensor& x) { return ops::mul_scalar(ops::sum(ops::mul(ops::log_softmax(x), target)), -1.0 / 30); });
}

TEST_CASE("cross_entropy: equal scores give ln K") {
  const Tensor labels = Tensor::zeros({2, 4, 5}, DType::kU8);
  CHECK(cross_entropy(Tensor::full({2, 19, 4, 5}, 3.0), labels).item() ==
        doctest::Approx(std::log(19.0)).epsilon(1e-6));
}

TEST_CASE("cross_entropy: unchanged by a shift; gradients of a pixel sum to zero") {
  const Tensor labels = oracle_labels();
  const Tensor x = oracle_student().copy_as(DType::kF32);
  const double plain = cross_entropy(x, labels).item();
  CHECK(cross_entropy(ops::add_scalar(x, 64), labels).item() == doctest::Approx(plain).epsilon(1e-5));
  x.set_requires_grad(true);
  cross_entropy(x, labels).backward();
  for (const double v : ops::sum(x.grad(), {1}, false).to_vector<double>()) CHECK(std::abs(v) < 1e-8);
}

TEST_CASE("cross_entropy: no valid pixel gives 0, not NaN") {
  for (const DType type : {DType::kF64, DType::kF32, DType::kBF16}) {
    const Tensor x = oracle_student().copy_as(type);
    x.set_requires_grad(true);
    const Tensor loss = cross_entropy(x, Tensor::full({2, 4, 5}, 255, DType::kU8), {.class_weights = three_weights()});
    loss.backward();
    CHECK(loss.item() == 0.0);
    CHECK(x.grad().dtype() == type);
    CHECK(largest_magnitude(x.grad().to_vector<double>()) == 0.0);
  }
}

TEST_CASE("cross_entropy: only classes of weight 0 give 0, not NaN") {
  const Tensor x = oracle_student().copy_as(DType::kF32);
  x.set_requires_grad(true);
  const Tensor loss = cross_entropy(x, oracle_labels(), {.class_weights = Tensor::zeros({3})});
  loss.backward();
  CHECK(loss.item() == 0.0);
  CHECK(largest_magnitude(x.grad().to_vector<double>()) == 0.0);
}

TEST_CASE("cross_entropy: ignored pixels do not count, even if their scores are NaN") {
  const Tensor clean = oracle_student().copy_as(DType::kF32);
  const Tensor dirty = clean.copy();
  const auto ids = oracle_labels().to_vector<int>();
  for (std::int64_t i = 0; i < 40; ++i) {
    if (ids[static_cast<std::size_t>(i)] != 255) continue;
    dirty.view().at<float>(i / 20, 1, i % 20 / 5, i % 5) = std::numeric_limits<float>::quiet_NaN();
  }
  const auto loss = [](const Tensor& x) { return cross_entropy(x, oracle_labels()); };
  const auto a = differentiate(loss, clean);
  const auto b = differentiate(loss, dirty);
  CHECK(a.loss == b.loss);
  CHECK(gap(b.gradient, a.gradient) == 0.0);
}

TEST_CASE("cross_entropy: NaN in a valid pixel is not hidden") {
  const Tensor x = oracle_student().copy_as(DType::kF32);
  x.view().at<float>(0, 0, 0, 0) = std::numeric_limits<float>::quiet_NaN();  // label 0
  CHECK(std::isnan(cross_entropy(x, oracle_labels()).item()));
}

TEST_CASE("cross_entropy: finite for scores of +-1e4") {
  const Tensor x = ops::mul_scalar(oracle_student(), 4000).copy_as(DType::kF32);
  const auto r = differentiate([](const Tensor& t) { return cross_entropy(t, oracle_labels()); }, x);
  CHECK(std::isfinite(r.loss));
  CHECK(r.loss > 100);
  CHECK(largest_magnitude(r.gradient) <= 1.0 / 30 + 1e-6);
}

TEST_CASE("cross_entropy: a label that is no class is named with its pixel") {
  for (const DType type : {DType::kF32, DType::kF64}) {
    for (const DType label_type : {DType::kU8, DType::kI32, DType::kI64}) {
      const Tensor labels = oracle_labels().copy_as(label_type);
      if (label_type == DType::kU8) labels.view().at<std::uint8_t>(1, 2, 3) = 7;
      if (label_type == DType::kI32) labels.view().at<std::int32_t>(1, 2, 3) = 7;
      if (label_type == DType::kI64) labels.view().at<std::int64_t>(1, 2, 3) = 7;
      const Tensor x = oracle_student().copy_as(type);
      const auto text = message_of<DataError>([&] { return cross_entropy(x, labels); });
      CHECK(contains(text, "n=1, h=2, w=3"));
      CHECK(contains(text, "label 7"));
      CHECK(contains(text, "0..2 (3 classes)"));
    }
  }
  const Tensor negative = Tensor::full({2}, -1, DType::kI64);
  CHECK(contains(message_of<DataError>([&] { return cross_entropy(Tensor::zeros({2, 3}), negative); }), "label -1"));
  CHECK(cross_entropy(Tensor::zeros({2, 3}), negative, {.ignore_index = -1}).item() == 0.0);
}

TEST_CASE("cross_entropy: backward through a retained graph adds up") {
  const Tensor x = oracle_student().copy_as(DType::kF32);
  x.set_requires_grad(true);
  const Tensor loss = cross_entropy(x, oracle_labels());
  backward(loss, {}, {.retain_graph = true});
  const auto once = x.grad().to_vector<double>();
  backward(loss);
  const auto twice = x.grad().to_vector<double>();
  for (std::size_t i = 0; i < once.size(); ++i) CHECK(twice[i] == doctest::Approx(2 * once[i]).epsilon(1e-6));
  CHECK(contains(message_of([&] { return backward(loss), 0; }), "second backward"));
}

TEST_CASE("cross_entropy: a loss used twice sends both gradients") {
  const auto r = differentiate(
      [](const Tensor& x) {
        const Tensor loss = cross_entropy(x, oracle_labels());
        return ops::add(ops::mul_scalar(loss, 2), loss);
      },
      oracle_student());
  const auto one = differentiate([](const Tensor& x) { return cross_entropy(x, oracle_labels()); }, oracle_student());
  for (std::size_t i = 0; i < one.gradient.size(); ++i) {
    CHECK(r.gradient[i] == doctest::Approx(3 * one.gradient[i]).epsilon(1e-12));
  }
}

TEST_CASE("cross_entropy: the value does not depend on whether a gradient is wanted") {
  Generator g(5);
  Tensor x = Tensor::empty({2, 19, 33, 31});
  fill_normal_(x, g, 0, 2);
  const Tensor labels = Tensor::full({2, 33, 31}, 4, DType::kU8);
  const double without = cross_entropy(x, labels).item();
  x.set_requires_grad(true);
  CHECK(cross_entropy(x, labels).item() == without);
}

TEST_CASE("cross_entropy: does not depend on the number of threads") {
  const int before = max_threads();
  Generator g(7);
  const Tensor s = Tensor::empty({2, 19, 61, 67});
  fill_normal_(s, g, 0, 3);
  std::vector<std::uint8_t> ids(2 * 61 * 67);
  for (auto& id : ids) id = static_cast<std::uint8_t>(g.below(19));
  const Tensor labels = Tensor::from(ids, {2, 61, 67});
  const Tensor weights = Tensor::empty({19});
  fill_uniform_(weights, g, 0.1, 2.0);
  const auto loss = [&](const Tensor& x) { return cross_entropy(x, labels, {.class_weights = weights}); };
  set_threads(1);
  const auto one = differentiate(loss, s);
  set_threads(3);
  const auto three = differentiate(loss, s);
  set_threads(before);
  CHECK(one.loss == three.loss);
  CHECK(one.gradient == three.gradient);
}

TEST_CASE("cross_entropy: wrong arguments are named") {
  const Tensor x = Tensor::zeros({2, 3, 4, 5});
  const Tensor labels = Tensor::zeros({2, 4, 5}, DType::kU8);
  CHECK(contains(message_of([&] { return cross_entropy(x, Tensor::zeros({2, 8, 10}, DType::kU8)); }), "[2, 8, 10]"));
  CHECK(contains(message_of([&] { return cross_entropy(x, Tensor::zeros({2, 4, 5})); }), "f32"));
  CHECK(contains(message_of([&] { return cross_entropy(x, labels, {.class_weights = Tensor::zeros({4})}); }), "[4]"));
  CHECK(contains(message_of([&] { return cross_entropy(x, labels, {.class_weights = Tensor::full({3}, -1)}); }),
                 "class 0"));
  CHECK(contains(message_of([&] { return cross_entropy(x, labels, {.label_smoothing = 1.5}); }), "1.5"));
  CHECK(contains(message_of([&] { return cross_entropy(Tensor::zeros({2, 3, 4}), labels); }), "[2, 3, 4]"));
}
