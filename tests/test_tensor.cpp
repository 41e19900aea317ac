// Tensor without differentiation: layout, views, element types, versions, the allocator and parallel_for.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "core/tensor.h"

using namespace limbeck;

TEST_SUITE_BEGIN("tensor");

namespace {

Tensor iota(const Shape& shape) {
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  std::iota(v.begin(), v.end(), 0.0F);
  return Tensor::from(v, shape);
}

}  // namespace

TEST_CASE("4-D tensors are channels-last in memory and NCHW by index") {
  const Tensor t = iota({2, 3, 4, 5});
  CHECK(t.is_dense());
  CHECK_FALSE(t.is_row_major());
  CHECK(t.strides() == Strides{60, 1, 15, 3});
  const TensorView v = t.view();
  CHECK(v.at<float>(1, 2, 3, 4) == 119.0F);
  CHECK(v.at<float>(0, 1, 0, 0) == 20.0F);
  CHECK(t.data<float>()[1] == 20.0F);  // the next channel is the next element
  const auto out = t.to_vector<float>();
  for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == static_cast<float>(i));
}

TEST_CASE("other ranks are row-major") {
  CHECK(iota({2, 3}).strides() == Strides{3, 1});
  CHECK(iota({7}).is_row_major());
  const Tensor s = Tensor::scalar(2.5);
  CHECK(s.ndim() == 0);
  CHECK(s.numel() == 1);
  CHECK(s.item() == 2.5);
}

TEST_CASE("dimensions of size 1 do not spoil density") {
  const Tensor t = Tensor::empty_strided({1, 8, 1, 1}, row_major_strides({1, 8, 1, 1}), DType::kF32);
  CHECK(t.is_dense());
  CHECK(t.is_row_major());
}

TEST_CASE("dense() copies only when needed") {
  const Tensor t = iota({1, 2, 3, 4});
  CHECK(t.dense().raw_data() == t.raw_data());
  const Tensor rows = Tensor::empty_strided(t.shape(), row_major_strides(t.shape()), DType::kF32);
  rows.copy_(t);
  CHECK(rows.data<float>()[1] == 1.0F);
  const Tensor back = rows.dense();
  CHECK(back.raw_data() != rows.raw_data());
  CHECK(back.is_dense());
  CHECK(back.to_vector<float>() == t.to_vector<float>());
}

TEST_CASE("copies convert element types") {
  const Tensor t = Tensor::from(std::vector<float>{-1.5F, 0.0F, 3.14159F, 255.0F}, {4});
  CHECK(t.copy_as(DType::kI32).to_vector<std::int32_t>() == std::vector<std::int32_t>{-1, 0, 3, 255});
  CHECK(t.copy_as(DType::kF64).to_vector<double>()[2] == static_cast<double>(3.14159F));
  CHECK(t.copy_as(DType::kBF16).to_vector<float>()[2] == 3.140625F);  // 8 significant bits
  const Tensor flags = t.copy_as(DType::kBool);
  CHECK(flags.data<bool>()[0]);
  CHECK_FALSE(flags.data<bool>()[1]);
}

TEST_CASE("bfloat16 rounds to nearest even and keeps NaN and infinity") {
  CHECK(bfloat16(1.0F).bits == 0x3F80);
  CHECK(static_cast<float>(bfloat16(1.00390625F)) == 1.0F);       // halfway, even below
  CHECK(static_cast<float>(bfloat16(1.01171875F)) == 1.015625F);  // halfway, even above
  CHECK(std::isnan(static_cast<float>(bfloat16(NAN))));
  CHECK(std::isinf(static_cast<float>(bfloat16(INFINITY))));
  CHECK(std::isinf(static_cast<float>(bfloat16(3.4e38F))));
}

TEST_CASE("in-place writes raise the version, shared by views and detached tensors") {
  const Tensor t = iota({4});
  const auto before = t.version();
  const Tensor part = t.alias({2}, {1}, 1);
  part.fill_(9);
  CHECK(t.version() == before + 1);
  CHECK(t.detach().version() == t.version());
  CHECK(t.to_vector<float>() == std::vector<float>{0, 9, 9, 3});
}

TEST_CASE("errors name what was wrong") {
  const Tensor t = iota({2, 3});
  CHECK_THROWS_WITH_AS(static_cast<void>(t.data<double>()), "[tensor] data<f64>() of a f32 tensor of shape [2, 3]",
                       Error);
  CHECK_THROWS_AS(static_cast<void>(t.item()), Error);
  CHECK_THROWS_AS(static_cast<void>(t.size(2)), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(t.alias({4, 3}, {3, 1})),
                       "[alias] shape [4, 3] with strides [3, 1] reaches elements 0..11 of a storage of 6", Error);
  CHECK_THROWS_AS(t.copy_(iota({3, 2})), Error);
  CHECK_THROWS_AS(static_cast<void>(Tensor::from(std::vector<float>{1, 2}, {3})), Error);
  CHECK_THROWS_AS(static_cast<void>(Tensor::empty({2, -1})), Error);
}

TEST_CASE("shapes whose bytes cannot be counted are refused") {
  constexpr std::int64_t kHuge = std::int64_t{1} << 61;
  for (const Device device : {kCpu, kMeta}) {
    CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({kHuge}, DType::kF64, device)), doctest::Contains("too large"),
                         Error);  // 2^64 bytes, which 64 bits count as none
    CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({4, kHuge, 2}, DType::kU8, device)),
                         doctest::Contains("too large"), Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({0, kHuge, 8}, DType::kU8, device)),
                         doctest::Contains("too large"), Error);  // its strides
  }
  CHECK(Tensor::empty({0, 1 << 20}, DType::kF64).numel() == 0);
}

TEST_CASE("meta tensors have a shape and no bytes") {
  const Tensor t = Tensor::empty({1024, 1024, 1024, 64}, DType::kF32, kMeta);
  CHECK(t.raw_data() == nullptr);
  CHECK_FALSE(t.view().defined());
  CHECK(t.copy_as(DType::kBF16).numel() == t.numel());
  CHECK_THROWS_AS(static_cast<void>(Tensor::empty({2}, DType::kF32, kMeta).to_vector<float>()), Error);
}

TEST_CASE("the allocator serves a repeated pattern from its cache and counts") {
  auto& allocator = CpuAllocator::get();
  allocator.trim();
  const auto step = [] {
    const Tensor a = Tensor::empty({1000, 1000});
    const Tensor b = Tensor::empty({333, 77});
    const Tensor c = Tensor::empty({5});
  };
  step();
  const auto before = allocator.stats();
  for (int i = 0; i < 20; ++i) step();
  const auto after = allocator.stats();
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.requests == before.requests + 60);
  CHECK(after.in_use == before.in_use);
  CHECK(after.cached >= 4'000'000);
  CHECK(after.peak >= after.in_use + 4'000'000);
  allocator.trim();
  CHECK(allocator.stats().cached == 0);
  const Tensor t = Tensor::empty({3});
  CHECK(reinterpret_cast<std::uintptr_t>(t.raw_data()) % 64 == 0);
}

TEST_CASE("poisoned memory is NaN") {
  const PoisonGuard poison;
  const Tensor t = Tensor::empty({100});
  for (const float v : t.to_vector<float>()) CHECK(std::isnan(v));
}

TEST_CASE("parallel_for covers each index once and passes exceptions on") {
  for (const std::int64_t n : {0, 1, 7, 1000, 100003}) {
    std::vector<int> seen(static_cast<std::size_t>(n), 0);
    parallel_for(n, 10, [&](std::int64_t b, std::int64_t e) {
      for (std::int64_t i = b; i < e; ++i) ++seen[static_cast<std::size_t>(i)];
    });
    for (const int count : seen) REQUIRE(count == 1);
  }
  CHECK_THROWS_AS(parallel_for(1000, 1,
                               [](std::int64_t b, std::int64_t) {
                                 if (b > 0 || max_threads() == 1) fail("body", "no");
                               }),
                  Error);
}

TEST_CASE("broadcasting follows NumPy") {
  CHECK(broadcast_shapes("t", {2, 1, 4}, {3, 1}) == Shape{2, 3, 4});
  CHECK(broadcast_shapes("t", {}, {5}) == Shape{5});
  CHECK_THROWS_WITH_AS(static_cast<void>(broadcast_shapes("t", {2, 3}, {2})),
                       "[t] shapes [2, 3] and [2] do not broadcast: 3 against 2", Error);
}

TEST_SUITE_END();
