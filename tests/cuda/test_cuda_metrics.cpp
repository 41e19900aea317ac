// Scores counted on the GPU, real or emulated, against those of the CPU.
#include <doctest/doctest.h>

#include "core/error.h"
#include "core/rng.h"
#include "datasets/device_confusion.h"
#include "tests/cuda/device.h"

using namespace limbeck;
using datasets::ConfusionMatrix;
using datasets::DeviceConfusion;
using test::kGpu;
using test::no_device;

namespace {

/// Ids in patches, as masks have them; with `ignored`, some are 255.
Tensor ids(const Shape& shape, std::int64_t classes, DType dtype, std::uint64_t seed, bool ignored) {
  Generator g(seed);
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  std::int64_t id = 0;
  for (auto& v : values) {
    if (g.below(5) == 0) id = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(classes)));
    v = ignored && g.below(7) == 0 ? datasets::kIgnoreId : id;
  }
  return Tensor::from(values, shape).copy_as(dtype);
}

bool same(const ConfusionMatrix& a, const ConfusionMatrix& b) {
  return a.ignored() == b.ignored() && std::equal(a.counts().begin(), a.counts().end(), b.counts().begin());
}

}  // namespace

TEST_SUITE_BEGIN("cuda_metrics");

TEST_CASE("counts of pairs on the device are those of the CPU") {
  if (no_device()) return;
  // Up to 63 classes a block collects in shared memory.
  for (const std::int64_t classes : {1, 2, 19, 63, 64, 255}) {
    for (const DType dtype : {DType::kU8, DType::kI32, DType::kI64}) {
      CAPTURE(classes);
      CAPTURE(name_of(dtype));
      ConfusionMatrix expected(classes);
      DeviceConfusion counts(classes, kGpu);
      std::uint64_t seed = 1;
      for (const Shape& shape : {Shape{1, 37, 53}, Shape{2, 16, 16}, Shape{1, 1, 1}, Shape{0, 4, 4}}) {
        const Tensor truth = ids(shape, classes, dtype, seed++, true);
        const Tensor prediction = ids(shape, classes, DType::kI64, seed++, false);
        expected.update(truth, prediction);
        counts.update(truth.to(kGpu), prediction.to(kGpu));
      }
      CHECK(same(counts.matrix(), expected));
      CHECK(expected.ignored() > 0);
    }
  }
}

TEST_CASE("views that are not dense are counted as what they show") {
  if (no_device()) return;
  const Tensor truth = ids({8, 10}, 3, DType::kU8, 5, true);
  const Tensor prediction = ids({8, 10}, 3, DType::kU8, 6, false);
  ConfusionMatrix expected(3);
  expected.update(truth.alias({4, 5}, {20, 2}), prediction.alias({4, 5}, {20, 2}));
  DeviceConfusion counts(3, kGpu);
  counts.update(truth.to(kGpu).alias({4, 5}, {20, 2}), prediction.to(kGpu).alias({4, 5}, {20, 2}));
  CHECK(same(counts.matrix(), expected));
}

TEST_CASE("ids that are no class, and maps that do not fit") {
  if (no_device()) return;
  const Tensor truth = Tensor::from(std::vector<std::int64_t>{0, 1, 3, 255, -1, 2}, {6}).to(kGpu);
  const Tensor prediction = Tensor::from(std::vector<std::int64_t>{0, 1, 1, 9, 0, 255}, {6}).to(kGpu);
  DeviceConfusion counts(3, kGpu);
  counts.update(truth, prediction);  // the prediction does not matter where the truth is ignored
  CHECK_THROWS_WITH_AS(static_cast<void>(counts.matrix()), doctest::Contains("3 pixels have a truth or predicted id"),
                       DataError);
  CHECK_THROWS_WITH_AS(counts.update(truth, prediction.alias({5}, {1})), doctest::Contains("prediction [5]"), Error);
  CHECK_THROWS_WITH_AS(counts.update(truth, prediction.to(kCpu)), doctest::Contains("on cuda:0"), Error);
  CHECK_THROWS_WITH_AS(counts.update(truth, prediction.copy_as(DType::kF32)), doctest::Contains("expected ids"), Error);
}

TEST_SUITE_END();
