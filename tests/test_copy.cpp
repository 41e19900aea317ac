// cast, clone, reshape, permute, concat, slice, pad2d and the autocast helpers: views or copies, order of elements,
// element types, errors.
#include "ops/copy.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "ops/concat.h"
#include "ops/copy_kernels.h"
#include "ops/elementwise.h"
#include "ops/pad.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("copy");

namespace {

Tensor iota(const Shape& shape) {
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  return Tensor::from(v, shape);
}

bool same_storage(const Tensor& a, const Tensor& b) { return a.impl()->storage == b.impl()->storage; }

}  // namespace

TEST_CASE("reshape keeps the logical order of elements, whatever the memory order") {
  const Tensor x = iota({2, 3, 4, 5});
  const std::vector<float> order = x.to_vector<float>();
  const Shape shapes[] = {{2, 60},      {120},           {6, 20},        {2, 3, 20},
                          {5, 4, 3, 2}, {2, 3, 2, 2, 5}, {1, 120, 1, 1}, {2, 3, 4, 5}};
  for (const Shape& shape : shapes) {
    CAPTURE(shape.to_string());
    CHECK(ops::reshape(x, shape).shape() == shape);
    CHECK(ops::reshape(x, shape).to_vector<float>() == order);
    CHECK(ops::reshape(ops::reshape(x, shape), x.shape()).to_vector<float>() == order);
  }
  CHECK(ops::flatten(x, 2).shape() == Shape{2, 3, 20});
  CHECK(ops::flatten(x, 0).shape() == Shape{120});
  CHECK(ops::reshape(x, {-1, 12}).shape() == Shape{10, 12});
  CHECK(ops::reshape(Tensor::scalar(3), {1, 1}).item() == 3);
  CHECK(ops::reshape(iota({1}), {}).ndim() == 0);
}

TEST_CASE("reshape is a view where the strides allow it, and only there") {
  const Tensor map = iota({2, 3, 4, 5});
  CHECK_FALSE(same_storage(ops::reshape(map, {2, 60}), map));
  CHECK(same_storage(ops::reshape(ops::permute(map, {0, 2, 3, 1}), {2, 20, 3}), map));
  const Tensor matrix = iota({6, 4});
  CHECK(same_storage(ops::reshape(matrix, {2, 3, 2, 2}), matrix));
  const Tensor pooled = iota({4, 19, 1, 1});
  CHECK(same_storage(ops::flatten(pooled), pooled));
  CHECK_FALSE(same_storage(ops::clone(pooled), pooled));
}

TEST_CASE("a copied reshape gives a dense tensor") { CHECK(ops::reshape(iota({2, 6, 3, 4}), {2, 3, 6, 4}).is_dense()); }

TEST_CASE("transposing copies agree with the plain loop") {
  // Sizes around the tile, with outer dimensions on both sides, in both directions.
  Generator g(1);
  const Shape shapes[] = {{1, 16, 16, 16}, {2, 17, 5, 7}, {3, 4, 40, 3},
                          {1, 100, 1, 33}, {2, 3, 9, 9},  {1, 64, 50, 50}};
  for (const Shape& shape : shapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      CAPTURE(shape.to_string());
      const Tensor x = test::random_normal(g, shape).copy_as(dtype);
      const Tensor rows = Tensor::empty_strided(shape, row_major_strides(shape), dtype);
      ops::copy_cpu(x.view(), rows.view());
      CHECK(rows.to_vector<float>() == x.to_vector<float>());
      const Tensor back = Tensor::empty(shape, dtype);
      ops::copy_cpu(rows.view(), back.view());
      CHECK(back.to_vector<float>() == x.to_vector<float>());
      const Tensor plain = Tensor::empty(shape, dtype);
      ops::copy_ref(rows.view(), plain.view());
      CHECK(plain.to_vector<float>() == x.to_vector<float>());
    }
  }
}

TEST_CASE("cast rounds as documented") {
  const Tensor x = Tensor::from(std::vector<float>{1.00390625F, 1.01171875F, -2.7F, 300.0F}, {4});
  // Halfway cases go to the even neighbour: 1 + 2^-8 down to 1, 1 + 3 * 2^-8 up to 1 + 2^-6.
  CHECK(ops::cast(x, DType::kBF16).to_vector<float>()[0] == 1.0F);
  CHECK(ops::cast(x, DType::kBF16).to_vector<float>()[1] == 1.015625F);
  CHECK(ops::cast(x, DType::kI32).to_vector<std::int32_t>()[2] == -2);
  CHECK(ops::cast(x, DType::kI64).to_vector<std::int64_t>()[3] == 300);
  CHECK(ops::cast(Tensor::from(std::vector<std::uint8_t>{0, 255}, {2}), DType::kF32).to_vector<float>()[1] == 255.0F);
  CHECK(same_storage(ops::cast(x, DType::kF32), x));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(ops::cast(Tensor::full({1}, nan), DType::kBF16).item()));
}

TEST_CASE("floating numbers that an integer type cannot hold become its nearest number, NaN becomes 0") {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  struct Row {
    double value;
    std::uint8_t byte;
    std::int32_t i32;
    std::int64_t i64;
  };
  constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max(),
                         kMin = std::numeric_limits<std::int32_t>::min();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(),
                         kLeast = std::numeric_limits<std::int64_t>::min();
  const std::vector<Row> rows{{std::nan(""), 0, 0, 0},
                              {kInfinite, 255, kMax, kMost},
                              {-kInfinite, 0, kMin, kLeast},
                              {0x1p30, 255, 1 << 30, 1 << 30},
                              {0x1p31, 255, kMax, std::int64_t{1} << 31},
                              {-0x1p31, 0, kMin, -(std::int64_t{1} << 31)},
                              {-0x1p32, 0, kMin, -(std::int64_t{1} << 32)},
                              {0x1p62, 255, kMax, std::int64_t{1} << 62},
                              {0x1p63, 255, kMax, kMost},
                              {-0x1p63, 0, kMin, kLeast},
                              {-0x1p80, 0, kMin, kLeast},
                              {255, 255, 255, 255},
                              {254, 254, 254, 254},
                              {256, 255, 256, 256},
                              {-0.75, 0, 0, 0},
                              {-1.5, 0, -1, -1}};
  // Enough of them for vectors and a rest; side by side, and every other one.
  constexpr std::int64_t kCount = 100;
  std::vector<double> values;
  for (std::size_t i = 0; i < kCount; ++i) values.push_back(rows[i % rows.size()].value);
  for (const DType from : {DType::kF64, DType::kF32, DType::kBF16}) {
    CAPTURE(std::string(name_of(from)));
    const Tensor x = Tensor::from(values, {kCount / 2, 2}).copy_as(from);
    for (const bool apart : {false, true}) {
      CAPTURE(apart);
      const auto as = [&]<class T>(T, auto member, const auto& copy) {
        const Tensor y = Tensor::zeros({kCount / 2, 2}, dtype_of<T>);
        const std::int64_t width = apart ? 1 : 2;
        copy(ops::slice(x, 1, 0, width).view(), ops::slice(y, 1, 0, width).view());
        const auto got = y.to_vector<T>();
        for (std::size_t i = 0; i < got.size(); i += apart ? 2 : 1) {
          CAPTURE(values[i]);
          CHECK(got[i] == rows[i % rows.size()].*member);
        }
      };
      for (const auto& copy : {ops::copy_ref, ops::copy_cpu}) {
        as(std::uint8_t{}, &Row::byte, copy);
        as(std::int32_t{}, &Row::i32, copy);
        as(std::int64_t{}, &Row::i64, copy);
      }
    }
  }
  CHECK(Tensor::from(std::vector<double>{255.99, -0.1}, {2}).to_vector<std::uint8_t>() ==
        std::vector<std::uint8_t>{255, 0});
  CHECK(Tensor::from(std::vector<double>{2147483647.5, -2147483648.5}, {2}).to_vector<std::int32_t>() ==
        std::vector<std::int32_t>{kMax, kMin});
  CHECK(Tensor::full({1}, 300, DType::kU8).item() == 255);
}

TEST_CASE("the gradient of a cast comes back in the type of the input") {
  const Tensor x = iota({3});
  x.set_requires_grad(true);
  const Tensor y = ops::cast(x, DType::kBF16);
  backward(y, Tensor::from(std::vector<float>{1, 2, 3}, {3}));
  CHECK(x.grad().dtype() == DType::kF32);
  CHECK(x.grad().to_vector<float>() == std::vector<float>{1, 2, 3});
  CHECK_FALSE(ops::cast(x, DType::kI32).requires_grad());
}

TEST_CASE("autocast helpers change nothing when autocast is off, and never f64, integers or undefined tensors") {
  const Tensor f32 = iota({2});
  const Tensor f64 = f32.copy_as(DType::kF64);
  const Tensor low = f32.copy_as(DType::kBF16);
  const Tensor ids = f32.copy_as(DType::kI64);
  CHECK(same_storage(ops::autocast(CastPolicy::kLow, f32), f32));
  CHECK(ops::autocast_widest({&low, &f32})[0].dtype() == DType::kBF16);
  const AutocastGuard on;
  CHECK(ops::autocast(CastPolicy::kLow, f32).dtype() == DType::kBF16);
  CHECK(ops::autocast(CastPolicy::kFull, low).dtype() == DType::kF32);
  CHECK(same_storage(ops::autocast(CastPolicy::kKeep, f32), f32));
  CHECK(same_storage(ops::autocast(CastPolicy::kLow, f64), f64));
  CHECK(same_storage(ops::autocast(CastPolicy::kLow, ids), ids));
  CHECK_FALSE(ops::autocast(CastPolicy::kLow, Tensor{}).defined());
  const Tensor none;
  const auto widest = ops::autocast_widest({&low, &f32, &none});
  CHECK(widest[0].dtype() == DType::kF32);
  CHECK_FALSE(widest[2].defined());
  CHECK(ops::concat({low, f32}, 0).dtype() == DType::kF32);
}

TEST_CASE("concat, slice and pad2d undo one another") {
  const Tensor a = iota({2, 3, 4, 5});
  const Tensor b = ops::neg(iota({2, 2, 4, 5}));
  const Tensor y = ops::concat({a, b}, 1);
  CHECK(y.shape() == Shape{2, 5, 4, 5});
  CHECK(ops::slice(y, 1, 0, 3).to_vector<float>() == a.to_vector<float>());
  CHECK(ops::slice(y, 1, -2, 5).to_vector<float>() == b.to_vector<float>());
  CHECK(same_storage(ops::slice(y, 1, 0, 3), y));
  const Tensor p = ops::pad2d(a, {.left = 1, .right = 2, .top = 3, .bottom = 4}, 9.0);
  CHECK(p.shape() == Shape{2, 3, 11, 8});
  CHECK(ops::slice(ops::slice(p, 2, 3, 7), 3, 1, 6).to_vector<float>() == a.to_vector<float>());
  CHECK(ops::sum(ops::slice(p, 2, 0, 3)).item() == 2 * 3 * 3 * 8 * 9.0);
  CHECK(ops::sum(p).item() == doctest::Approx(ops::sum(a).item() + 9.0 * static_cast<double>(p.numel() - a.numel())));
  const Tensor ids = Tensor::from(std::vector<std::uint8_t>{1, 2}, {1, 1, 1, 2});
  const Tensor padded = ops::pad2d(ids, {.right = 1}, 255);
  CHECK(padded.to_vector<std::uint8_t>() == std::vector<std::uint8_t>{1, 2, 255});
  CHECK(ops::slice(a, 0, 1, 1).numel() == 0);
}

TEST_CASE("a write through a slice is a write to the tensor") {
  const Tensor x = iota({2, 2});
  const Tensor w = Tensor::full({2, 2}, 1.0);
  w.set_requires_grad(true);
  const Tensor y = ops::sum(ops::mul(x, w));
  ops::slice(x, 0, 0, 1).fill_(5);
  CHECK(x.to_vector<float>() == std::vector<float>{5, 5, 2, 3});
  CHECK(contains(message_of([&] { y.backward(); }), "[mul]"));
}

TEST_CASE("errors name what was got and what was expected") {
  const Tensor x = iota({2, 3, 4, 5});
  CHECK(contains(message_of([&] {
                   (void)ops::reshape(x, {7, 20});
                 }),
                 "[reshape] got shape [7, 20] of 140 elements for a tensor of shape [2, 3, 4, 5] with 120"));
  CHECK(contains(message_of([&] { (void)ops::reshape(x, {-1, 7}); }), "[-1, 7]"));
  CHECK(contains(message_of([&] { (void)ops::reshape(x, {-1, -1}); }), "more than one -1"));
  CHECK(contains(message_of([&] { (void)ops::permute(x, {0, 1, 1, 3}); }), "[permute] got [0, 1, 1, 3]"));
  CHECK(contains(message_of([&] { (void)ops::permute(x, {0, 1}); }), "[2, 3, 4, 5]"));
  CHECK(contains(message_of([&] { (void)ops::flatten(x, 4); }), "[flatten]"));
  CHECK(contains(message_of([&] { (void)ops::slice(x, 1, 2, 4); }),
                 "[slice] got range 2..4 of dimension 1 of shape [2, 3, 4, 5]"));
  CHECK(contains(message_of([&] { (void)ops::slice(x, 1, 2, 1); }), "[slice]"));
  const std::string joined = message_of([&] { (void)ops::concat({x, iota({2, 3, 4, 6})}, 1); });
  CHECK(contains(joined, "tensor 1 has shape [2, 3, 4, 6], expected [2, 3, 4, 5]"));
  CHECK(contains(message_of([&] {
                   (void)ops::concat({x, x.copy_as(DType::kBF16)}, 1);
                 }),
                 "tensor 1 is bf16, expected f32"));
  CHECK(contains(message_of([&] { (void)ops::concat(std::vector<Tensor>{}, 0); }), "no tensors"));
  CHECK(contains(message_of([&] { (void)ops::pad2d(iota({2, 3}), {}); }), "[pad2d] got f32 [2, 3]"));
  CHECK(contains(message_of([&] { (void)ops::pad2d(x, {.left = -1}); }), "-1 left"));
}

TEST_SUITE_END();
