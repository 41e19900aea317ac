// What this is: the measurements and sums of apps/floor.h.
#include "apps/floor.h"

#include <algorithm>
#include <functional>

#include "core/autograd.h"
#include "core/cuda.h"
#include "core/log.h"
#include "core/rng.h"
#include "ops/copy.h"
#include "ops/matmul.h"

namespace limbeck::apps {
namespace {

/// Shortest time of `work`, after one call that does not count.
double best_seconds(Device device, int repeats, const std::function<void()>& work) {
  const auto finish = [&] {
    if (device.is_cuda()) cuda::synchronize(device);
  };
  work();
  finish();
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const double start = monotonic_seconds();
    work();
    finish();
    best = std::min(best, monotonic_seconds() - start);
  }
  return best;
}

Floor of_work(double flops, double bytes, const MachineSpeed& speed) {
  return {flops, bytes, std::max(flops / speed.flops_per_second, bytes / speed.bytes_per_second)};
}

/// Least traffic of one pass over a layer with multiply-adds.
double pass_bytes(const nn::LayerRecord& layer, double element) {
  return element * static_cast<double>(layer.input.numel() + layer.output.numel() + layer.params);
}

}  // namespace

Floor& Floor::operator+=(const Floor& other) noexcept {
  flops += other.flops;
  bytes += other.bytes;
  seconds += other.seconds;
  return *this;
}

MachineSpeed measure_speed(Device device, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    fail("measure_speed", "type {}, expected f32 or bf16", name_of(dtype));
  }
  const NoGradGuard off;
  constexpr std::int64_t kSide = 1536;
  constexpr std::int64_t kCopied = 16 << 20;
  Generator g(1);
  Tensor a = Tensor::empty({kSide, kSide}, DType::kF32, device);
  fill_normal_(a, g, 0.0, 1.0);
  a = ops::cast(a, dtype);
  const double product = best_seconds(device, 12, [&] { (void)ops::matmul(a, a); });
  const Tensor x = Tensor::zeros({kCopied}, DType::kF32, device);
  const double copy = best_seconds(device, 12, [&] { (void)ops::clone(x); });
  const double side = kSide;
  return {2 * side * side * side / product, 2.0 * 4.0 * kCopied / copy};
}

Floor inference_floor(std::span<const nn::LayerRecord> layers, DType dtype, const MachineSpeed& speed) {
  const auto element = static_cast<double>(size_of(dtype));
  Floor sum;
  for (const nn::LayerRecord& layer : layers) {
    if (layer.macs == 0) continue;
    sum += of_work(2.0 * static_cast<double>(layer.macs), pass_bytes(layer, element), speed);
  }
  return sum;
}

Floor training_floor(std::span<const nn::LayerRecord> layers, DType dtype, const MachineSpeed& speed) {
  const auto element = static_cast<double>(size_of(dtype));
  Floor sum;
  for (const nn::LayerRecord& layer : layers) {
    if (layer.macs > 0) {
      sum += of_work(6.0 * static_cast<double>(layer.macs), 3 * pass_bytes(layer, element), speed);
    } else if (layer.params > 0) {  // batch norm
      sum += of_work(0, 5 * element * static_cast<double>(layer.output.numel()), speed);
    }
    sum += of_work(0, 5 * 4.0 * static_cast<double>(layer.params), speed);
  }
  return sum;
}

}  // namespace limbeck::apps
