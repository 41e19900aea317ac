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

/// Shortest time of `work`, after one call that does not count: of twelve calls, or of as many as a second holds.
double best_seconds(Device device, const std::function<void()>& work) {
  const auto finish = [&] {
    if (device.is_cuda()) cuda::synchronize(device);
  };
  work();
  finish();
  double best = 1e30;
  const double begin = monotonic_seconds();
  for (int i = 0; i < 12 && (i < 2 || monotonic_seconds() - begin < 1.0); ++i) {
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
  MachineSpeed speed;
  // Work that is over before the device is warm, or while the host still asks for it, measures something else.
  Generator g(1);
  double seconds = 0;
  for (std::int64_t side = 256; side <= 8192 && seconds < 5e-3; side *= 2) {
    Tensor a = Tensor::empty({side, side}, DType::kF32, device);
    fill_normal_(a, g, 0.0, 1.0);
    a = ops::cast(a, dtype);
    seconds = best_seconds(device, [&] { (void)ops::matmul(a, a); });
    const auto length = static_cast<double>(side);
    speed.flops_per_second = 2 * length * length * length / seconds;
  }
  seconds = 0;
  for (std::int64_t count = 16 << 20; count <= 256 << 20 && seconds < 5e-4; count *= 2) {
    const Tensor x = Tensor::zeros({count}, DType::kF32, device);
    seconds = best_seconds(device, [&] { (void)ops::clone(x); });
    speed.bytes_per_second = 2.0 * 4.0 * static_cast<double>(count) / seconds;
  }
  return speed;
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
