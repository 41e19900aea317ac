// The least time of a step: sums by hand for three layers, and measurements that a real product respects.
#include "apps/floor.h"

#include <doctest/doctest.h>

#include <vector>

#include "core/error.h"

using namespace limbeck;
using apps::Floor;
using apps::MachineSpeed;

namespace {

/// A convolution, its batch norm, and a pooling layer.
std::vector<nn::LayerRecord> three_layers() {
  return {{"conv", "Conv2d 1x1", {1, 10, 4, 5}, {1, 20, 4, 5}, DType::kF32, 200, 4000},
          {"bn", "BatchNorm2d", {1, 20, 4, 5}, {1, 20, 4, 5}, DType::kF32, 40, 0},
          {"pool", "AvgPool2d", {1, 20, 4, 5}, {1, 20, 2, 2}, DType::kF32, 0, 0}};
}

}  // namespace

TEST_CASE("inference: a layer takes the longer of arithmetic and traffic, and only layers with multiply-adds count") {
  const auto layers = three_layers();
  // 8000 flop; (200 + 400 + 200) numbers.
  const Floor slow_memory = apps::inference_floor(layers, DType::kF32, {8000, 800});
  CHECK(slow_memory.flops == 8000);
  CHECK(slow_memory.bytes == 3200);
  CHECK(slow_memory.seconds == doctest::Approx(4));
  CHECK(apps::inference_floor(layers, DType::kF32, {2000, 1600}).seconds == doctest::Approx(4));
  CHECK(apps::inference_floor(layers, DType::kBF16, {8000, 800}).seconds == doctest::Approx(2));
}

TEST_CASE("training: three products, five maps for a batch norm, five numbers per parameter for the optimizer") {
  const Floor f = apps::training_floor(three_layers(), DType::kBF16, {1000, 100});
  const double optimizer = 5 * 4 * 240;
  CHECK(f.flops == 24000);
  CHECK(f.bytes == 3 * 2 * 800 + 5 * 2 * 400 + optimizer);
  CHECK(f.seconds == doctest::Approx(48 + 40 + optimizer / 100));  // the convolution is bound by its traffic
}

TEST_CASE("a machine has a speed in f32 and bf16, and no other type is measured") {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const MachineSpeed s = apps::measure_speed(kCpu, t);
    CHECK(s.flops_per_second > 1e8);
    CHECK(s.bytes_per_second > 1e8);
  }
  CHECK_THROWS_WITH_AS((void)apps::measure_speed(kCpu, DType::kF64), doctest::Contains("f64, expected f32 or bf16"),
                       Error);
}
