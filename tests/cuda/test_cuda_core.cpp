// Tensors on the GPU, real or emulated: copies between devices and layouts, fill, accumulation, the allocator, errors.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/autograd.h"
#include "core/choices.h"
#include "core/cuda.h"
#include "core/input_lane.h"
#include "core/readback.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "tests/cuda/device.h"

using namespace limbeck;
using test::kGpu;
using test::no_device;

namespace {

Tensor numbers(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  Generator g(5);
  fill_uniform_(t, g, is_floating(dtype) ? -3.0 : 0.0, 100.0);
  return t;
}

constexpr DType kAll[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kI64, DType::kI32, DType::kU8, DType::kBool};

}  // namespace

TEST_SUITE_BEGIN("cuda_core");

TEST_CASE("what goes to the device comes back, in every type") {
  if (no_device()) return;
  for (const DType dtype : kAll) {
    CAPTURE(name_of(dtype));
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 11, 5, 3}, Shape{0, 3}, Shape{1, 8, 16, 16}}) {
      const Tensor t = numbers(shape, dtype);
      const Tensor there = t.to(kGpu);
      CHECK(there.device() == kGpu);
      CHECK(there.to(kCpu).to_vector<double>() == t.to_vector<double>());
      CHECK(there.to_vector<double>() == t.to_vector<double>());
    }
  }
}

TEST_CASE("more bytes than the staging buffers hold") {
  if (no_device()) return;
  const Tensor t = numbers({3, 1000, 1201}, DType::kF32);  // 14.4 MB
  CHECK(t.to(kGpu).to_vector<float>() == t.to_vector<float>());
}

TEST_CASE("inputs of changing sizes on their lane") {
  if (no_device()) return;
  std::vector<Tensor> there;
  std::vector<Tensor> here;
  std::int64_t size = 0;
  for (int k = 0; k < 11; ++k) {
    size = (size * 7 + 12345) % 40000;
    here.push_back(numbers({1 + size % 5, 3, 1 + size % 61, 37}, k % 2 == 0 ? DType::kF32 : DType::kU8));
    there.push_back(Tensor::empty(here.back().shape(), here.back().dtype(), kGpu));
    const Tensor given = here.back().copy();
    send_input(given, there.back());
    given.zero_();  // it has been taken
  }
  for (std::size_t k = 0; k < here.size(); ++k) CHECK(there[k].to_vector<double>() == here[k].to_vector<double>());
  const Tensor empty = Tensor::zeros({0, 3});
  send_input(empty, empty.to(kGpu));
  CHECK_THROWS_WITH_AS(send_input(here[0], there[1]), doctest::Contains("for its like on a GPU"), Error);
  CHECK_THROWS_WITH_AS(send_input(there[0], there[0]), doctest::Contains("a dense tensor of the CPU"), Error);
}

TEST_CASE("copies convert between all types and layouts as on the CPU") {
  if (no_device()) return;
  const Shape shape{2, 9, 33, 10};
  for (const DType from : kAll) {
    for (const DType to : kAll) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      const Tensor source = numbers(shape, from == DType::kBool ? DType::kBool : from);
      for (const bool source_rows : {false, true}) {
        for (const bool result_rows : {false, true}) {
          const Tensor s =
              Tensor::empty_strided(shape, source_rows ? row_major_strides(shape) : default_strides(shape), from, kGpu);
          s.copy_(source);
          const Tensor d =
              Tensor::empty_strided(shape, result_rows ? row_major_strides(shape) : default_strides(shape), to, kGpu);
          d.copy_(s);
          CHECK(d.to_vector<double>() == source.copy_as(to).to_vector<double>());
        }
      }
    }
  }
}

TEST_CASE("floating numbers that an integer cannot hold become what they become on the CPU") {
  if (no_device()) return;
  constexpr double kBeyond = std::numeric_limits<double>::infinity();
  const Tensor values = Tensor::from(
      std::vector<double>{-kBeyond, -1e30, -129, -128.5, -1, -0.5, 0.5, 127.9, 255.5, 256, 3e9, 1e30, kBeyond, NAN},
      {14});
  for (const DType from : {DType::kF64, DType::kF32, DType::kBF16}) {
    for (const DType to : {DType::kU8, DType::kI32, DType::kI64, DType::kBool}) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      const Tensor there = values.copy_as(from).to(kGpu).copy_as(to);
      CHECK(there.to_vector<std::int64_t>() == values.copy_as(from).copy_as(to).to_vector<std::int64_t>());
    }
  }
}

TEST_CASE("copies honour gaps, repetition and odd offsets") {
  if (no_device()) return;
  const Tensor t = numbers({4, 6, 8}, DType::kF32);
  const Tensor there = t.to(kGpu);
  const auto same = [&](const Shape& shape, const Strides& strides, std::int64_t offset) {
    CHECK(there.alias(shape, strides, offset).copy().to_vector<float>() ==
          t.alias(shape, strides, offset).copy().to_vector<float>());
  };
  same({4, 3, 8}, {48, 16, 1}, 8);
  same({4, 6, 4}, {48, 8, 2}, 1);
  same({5, 7}, {0, 1}, 3);
  same({5, 7}, {1, 0}, 3);
  same({8, 4}, {1, 8}, 0);
  same({8, 6, 4}, {1, 8, 48}, 0);
  same({4, 8, 6}, {48, 1, 8}, 0);
  // Into a view with gaps: what lies between stays.
  const Tensor wide = Tensor::zeros({10, 10}, DType::kF32, kGpu);
  wide.alias({5, 5}, {20, 2}, 1).fill_(3);
  const Tensor host = Tensor::zeros({10, 10});
  host.alias({5, 5}, {20, 2}, 1).fill_(3);
  CHECK(wide.to_vector<float>() == host.to_vector<float>());
}

TEST_CASE("fill, zeros and item") {
  if (no_device()) return;
  for (const DType dtype : kAll) {
    CHECK(Tensor::full({3, 5}, 1, dtype, kGpu).to_vector<double>() == std::vector<double>(15, 1.0));
    CHECK(Tensor::zeros({2, 3, 4, 5}, dtype, kGpu).to_vector<double>() == std::vector<double>(120, 0.0));
  }
  CHECK(Tensor::full({}, 2.5, DType::kBF16, kGpu).item() == 2.5);
}

TEST_CASE("gradients that arrive twice are added on the device") {
  if (no_device()) return;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
    for (const Shape& shape : {Shape{7}, Shape{2, 8, 4, 4}}) {
      const Tensor a = numbers(shape, dtype);
      const Tensor b = numbers(shape, dtype).copy();
      const Tensor sum = a.to(kGpu);
      cuda::add_view(kGpu, b.to(kGpu).view(), sum.view());
      const auto x = a.to_vector<double>();
      auto expected = x;
      for (std::size_t i = 0; i < x.size(); ++i) expected[i] = x[i] + x[i];
      CHECK(sum.to_vector<double>() == expected);
    }
  }
}

TEST_CASE("the allocator serves repeated sizes without asking the driver") {
  if (no_device()) return;
  const auto step = [] {
    std::vector<Tensor> tensors;
    for (const std::int64_t n : {100, 5000, 300000, 3000000, 70, 6000000})
      tensors.push_back(Tensor::empty({n}, DType::kF32, kGpu));
    return tensors;
  };
  static_cast<void>(step());
  const auto before = cuda::memory_stats(kGpu);
  for (int i = 0; i < 3; ++i) static_cast<void>(step());
  const auto after = cuda::memory_stats(kGpu);
  CHECK(after.requests == before.requests + 18);
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.in_use == before.in_use);
  cuda::trim(kGpu);
  CHECK(cuda::memory_stats(kGpu).cached < before.cached);
}

TEST_CASE("numbers read late are those of the moment when they were asked for") {
  if (no_device()) return;
  const std::vector<Tensor> scalars{Tensor::full({}, 2.5, DType::kF32, kGpu), Tensor::full({}, -3, DType::kF32, kGpu)};
  std::vector<Readback> readings;
  for (int i = 0; i < 6; ++i) {
    readings.emplace_back(scalars);
    scalars[1].fill_(i);
  }
  CHECK(readings[0].wait() == std::vector<double>{2.5, -3});
  CHECK(readings[4].wait() == std::vector<double>{2.5, 3});
  readings.clear();  // some of them never read
  CHECK(Readback(scalars).wait() == std::vector<double>{2.5, 5});
  const std::vector<Tensor> wrong{Tensor::zeros({2}, DType::kF32, kGpu)};
  CHECK_THROWS_WITH_AS(Readback{wrong}, doctest::Contains("expected one f32 number"), Error);
}

TEST_CASE("what was chosen by timing is kept as text, and what is there stays") {
  choices::remember("test | a card | 1 2 3", 17);
  CHECK(choices::find("test | a card | 1 2 3") == 17);
  CHECK(choices::to_text().find("test | a card | 1 2 3\t17\n") != std::string::npos);
  choices::adopt("test | a card | 1 2 3\t4\ntest | another | 5\t-6\n");
  CHECK(choices::find("test | a card | 1 2 3") == 17);
  CHECK(choices::find("test | another | 5") == -6);
  CHECK(!choices::find("test | a third").has_value());
  for (const char* text : {"no number", "a key\t", "a key\tx", "a key\t3 "})
    CHECK_THROWS_WITH_AS(choices::adopt(text), doctest::Contains("expected a key, a tab and a number"), DataError);
}

TEST_CASE("tensors on a device that is not there") {
  CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({2}, DType::kF32, Device{DeviceType::kCuda, 99})),
                       doctest::Contains("cuda:99 is not available"), ConfigError);
}

TEST_SUITE_END();
