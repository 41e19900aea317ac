// Dropout: the mask is a pure function of the generator and the logical index; share, scale, modes, errors.
#include "ops/dropout.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/autograd.h"
#include "core/parallel.h"
#include "ops/reduce.h"
#include "tests/harness/errors.h"

using namespace limbeck;
using test::message_of;

TEST_SUITE_BEGIN("dropout");

namespace {

/// The definition: element i (row-major, logical) is kept if its word's 24-bit number is not below p.
std::vector<float> expected_mask(const Generator& g, std::int64_t count, double p) {
  std::vector<float> mask;
  for (std::int64_t i = 0; i < count; ++i) {
    const bool keep = static_cast<double>(to_unit_float(g.word_at(static_cast<std::uint64_t>(i)))) >= p;
    mask.push_back(keep ? static_cast<float>(1.0 / (1.0 - p)) : 0.0F);
  }
  return mask;
}

}  // namespace

TEST_CASE("the mask is the generator's sequence in logical order, for every alignment and layout") {
  // Areas that are and are not multiples of 4 take different loops; offsets shift the block of four words.
  const Shape shapes[] = {{2, 19, 4, 6}, {2, 19, 5, 5}, {1, 300, 2, 2}, {3, 1, 8, 9}, {4, 33}, {1000}};
  for (const Shape& shape : shapes) {
    for (const std::uint64_t offset : {0U, 1U, 2U, 7U}) {
      CAPTURE(shape.to_string());
      CAPTURE(offset);
      Generator g(11, 0x123456789ABCDEFULL);
      g.set_offset(offset);
      const auto expected = expected_mask(g, shape.numel(), 0.3);
      const Tensor ones = Tensor::full(shape, 1.0);
      CHECK(ops::dropout(ones, 0.3, true, g).to_vector<float>() == expected);
      CHECK(g.offset() == offset + static_cast<std::uint64_t>(shape.numel()));
    }
  }
}

TEST_CASE("the mask does not depend on threads, memory order or element type, and offsets beyond 32 bits count") {
  const Shape shape{2, 48, 33, 32};
  Generator start(3);
  start.set_offset((std::uint64_t{1} << 36U) + 2);
  const auto expected = expected_mask(start, shape.numel(), 0.5);
  const Tensor rows = Tensor::empty_strided(shape, row_major_strides(shape), DType::kF32);
  rows.fill_(1);
  const int threads = max_threads();
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    Generator g = start;
    CHECK(ops::dropout(Tensor::full(shape, 1.0), 0.5, true, g).to_vector<float>() == expected);
    g = start;
    CHECK(ops::dropout(rows, 0.5, true, g).to_vector<float>() == expected);
    g = start;
    CHECK(ops::dropout(Tensor::full(shape, 1.0, DType::kBF16), 0.5, true, g).to_vector<float>() == expected);
  }
  set_threads(threads);
}

TEST_CASE("dropout2d decides once per sample and channel") {
  Generator g(8);
  const auto expected = expected_mask(g, 2 * 300, 0.25);
  const Tensor y = ops::dropout2d(Tensor::full({2, 300, 3, 5}, 1.0), 0.25, true, g);
  CHECK(g.offset() == 600);
  const auto v = y.to_vector<float>();
  for (std::size_t i = 0; i < v.size(); ++i) REQUIRE(v[i] == expected[i / 15]);
}

TEST_CASE("share and expectation") {
  Generator g(1);
  const Tensor y = ops::dropout(Tensor::full({1, 64, 64, 64}, 1.0), 0.2, true, g);
  double zeros = 0;
  for (const float v : y.to_vector<float>()) zeros += v == 0.0F ? 1 : 0;
  // 2^18 decisions: the standard deviation of the share is 0.0008.
  CHECK(zeros / static_cast<double>(y.numel()) == doctest::Approx(0.2).epsilon(0.02));
  CHECK(ops::mean(y).item() == doctest::Approx(1.0).epsilon(0.005));
}

TEST_CASE("two calls draw different masks, the gradient uses the mask of its call") {
  Generator g(4);
  const Tensor x = Tensor::full({1, 16, 8, 8}, 1.0);
  x.set_requires_grad(true);
  const Tensor first = ops::dropout(x, 0.5, true, g);
  const Tensor second = ops::dropout(x, 0.5, true, g);
  CHECK(first.to_vector<float>() != second.to_vector<float>());
  backward(first, Tensor::full(x.shape(), 1.0));
  CHECK(x.grad().to_vector<float>() == first.to_vector<float>());  // ones in, ones as seed
}

TEST_CASE("evaluation, p = 0 and p = 1") {
  Generator g(4);
  const Tensor x = Tensor::full({4, 5}, 2.0);
  CHECK(ops::dropout(x, 0.5, false, g).raw_data() == x.raw_data());
  CHECK(ops::dropout(x, 0.0, true, g).raw_data() == x.raw_data());
  CHECK(g.offset() == 0);
  CHECK(ops::dropout(x, 1.0, true, g).to_vector<float>() == std::vector<float>(20, 0.0F));
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(ops::dropout(Tensor::full({8}, infinity), 1.0, true, g).to_vector<float>() == std::vector<float>(8, 0.0F));
}

TEST_CASE("errors") {
  Generator g(4);
  const Tensor x = Tensor::full({4, 5}, 2.0);
  CHECK(message_of([&] { (void)ops::dropout(x, 1.5, true, g); }).find("[dropout] got p = 1.5") != std::string::npos);
  CHECK(message_of([&] { (void)ops::dropout(x, std::nan(""), true, g); }).find("[dropout]") != std::string::npos);
  CHECK(message_of([&] { (void)ops::dropout2d(Tensor::zeros({5}), 0.5, true, g); }).find("[dropout2d]") !=
        std::string::npos);
}

TEST_SUITE_END();
