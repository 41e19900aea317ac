// Intra-class variation: oracle, agreement with generic ops, labels, invariants, error messages.
#include <doctest/doctest.h>

#include "distill/ifvd.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using distill::ifvd;

namespace {

/// Blocks of classes 0..4, every eleventh pixel ignored.
Tensor block_labels(const Shape& map) {
  std::vector<std::uint8_t> ids;
  for (std::int64_t i = 0; i < map[0] * map[2] * map[3]; ++i) {
    ids.push_back(i % 11 == 3 ? std::uint8_t{255} : static_cast<std::uint8_t>(i / 7 % 5));
  }
  return Tensor::from(ids, {map[0], map[2], map[3]});
}

PairLoss with_block_labels() {
  return [](const Tensor& s, const Tensor& t) {
    const Shape map = s.ndim() == 4 ? s.shape() : Shape{1, 1, 1, 1};
    return ifvd(s, t, block_labels(map));
  };
}

/// 1 where a pixel has the class: [N,K,M].
Tensor one_hot(const Tensor& labels, std::int64_t classes) {
  const auto ids = labels.to_vector<std::int64_t>();
  const std::int64_t n = labels.size(0);
  const std::int64_t m = labels.numel() / n;
  std::vector<double> hot(static_cast<std::size_t>(n * classes * m), 0.0);
  for (std::int64_t i = 0; i < n * m; ++i) {
    const std::int64_t id = ids[static_cast<std::size_t>(i)];
    if (id < classes) hot[static_cast<std::size_t>((i / m * classes + id) * m + i % m)] = 1;
  }
  return Tensor::from(hot, {n, classes, m});
}

/// Cosines with the class centres [N,M], 0 where ignored.
Tensor cosines(const Tensor& x, const Tensor& hot) {
  const Tensor f = ops::reshape(x, {x.size(0), x.size(1), -1});              // [N,C,M]
  const Tensor count = ops::add_scalar(ops::sum(hot, {2}, true), 1e-6);      // [N,K,1]
  const Tensor centres = ops::div(ops::matmul(hot, f, false, true), count);  // [N,K,C]
  const Tensor own = ops::matmul(centres, hot, true, false);                 // [N,C,M]
  const auto norm = [](const Tensor& v) { return ops::sqrt(ops::sum(ops::square(v), {1})); };
  const Tensor valid = ops::sum(hot, {1});
  // Ignored pixels have a zero centre; 1 in place of its length keeps the quotient 0.
  const Tensor own_norm = norm(ops::add(own, ops::reshape(ops::add_scalar(ops::neg(valid), 1), {x.size(0), 1, -1})));
  return ops::mul(valid, ops::div(ops::sum(ops::mul(f, own), {1}), ops::mul(norm(f), own_norm)));
}

}  // namespace

TEST_CASE("ifvd: oracle") {
  check_oracle([](const Tensor& s) { return ifvd(s, oracle_teacher().copy_as(s.dtype()), oracle_labels()); },
               {0.6216667811448, 0.3437790602398, 0.003441407576362});
}

TEST_CASE("ifvd: value and gradient of the composite of generic ops, in f64") {
  const Tensor hot = one_hot(oracle_labels(), 3);
  check_composite([](const Tensor& s) { return ifvd(s, oracle_teacher(), oracle_labels()); },
                  [&](const Tensor& s) {
                    return ops::mean(ops::square(ops::sub(cosines(s, hot), cosines(oracle_teacher(), hot))));
                  });
}

TEST_CASE("ifvd: the promises of every loss") {
  check_zero_for_equal_maps(with_block_labels(), {2, 19, 13, 15});
  check_zero_for_equal_maps(with_block_labels(), {2, 1, 3, 3});
  check_large_numbers(with_block_labels(), {2, 11, 15, 14}, {2, 7, 15, 14});
  check_threads(with_block_labels(), {2, 64, 40, 41}, {2, 32, 40, 41});
  check_mixed_types(with_block_labels(), {2, 11, 9, 9}, {2, 19, 9, 9});
  check_nan_shows(with_block_labels(), {1, 3, 4, 5});
  check_refusals(with_block_labels());
}

TEST_CASE("ifvd: ignored pixels neither count nor leak") {
  const Tensor s = noise_map({2, 5, 6, 7}, 1, 1);
  const Tensor t = noise_map({2, 5, 6, 7}, 2, 1);
  const Tensor nothing = Tensor::full({2, 6, 7}, 255, DType::kU8);
  const auto r = differentiate([&](const Tensor& x) { return ifvd(x, t, nothing); }, s);
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == 0.0);

  const Tensor labels = block_labels(s.shape());  // pixel 3 is ignored
  const double before = ifvd(s, t, labels).item();
  const Tensor bad = s.copy();
  for (std::int64_t c = 0; c < 5; ++c) bad.view().at<float>(0, c, 0, 3) = std::nanf("");
  CHECK(ifvd(bad, t, labels).item() == before);
}

TEST_CASE("ifvd: one pixel per class is its own centre") {
  const Tensor labels = Tensor::from(std::vector<std::uint8_t>{0, 1, 2, 3}, {1, 2, 2});
  CHECK(ifvd(noise_map({1, 7, 2, 2}, 1, 1), noise_map({1, 7, 2, 2}, 2, 1), labels).item() ==
        doctest::Approx(0.0).epsilon(1e-10));
}

TEST_CASE("ifvd: labels of any integer type; wrong ones are named") {
  const Tensor s = oracle_student();
  const Tensor t = oracle_teacher();
  const double value = ifvd(s, t, oracle_labels()).item();
  for (const DType type : {DType::kI32, DType::kI64}) CHECK(ifvd(s, t, oracle_labels().copy_as(type)).item() == value);
  CHECK(contains(message_of([&] { return ifvd(s, t, {}); }), "no labels"));
  CHECK(contains(message_of([&] { return ifvd(s, t, Tensor::zeros({2, 8, 10}, DType::kU8)); }), "[2, 8, 10]"));
  CHECK(contains(message_of([&] { return ifvd(s, t, Tensor::zeros({2, 4, 5})); }), "type f32"));
  CHECK(contains(message_of([&] { return ifvd(s, t, Tensor::full({2, 4, 5}, 300, DType::kI32)); }), "label 300"));
}
