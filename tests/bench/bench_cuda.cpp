// What this is: the own kernels of the GPU against the card's copy bandwidth. Prints one line of JSON per kernel: the bytes
//   that it must move at least (each input read once, each output written once), the median time of its launches, and the
//   share of the measured copy bandwidth that makes.
// Sizes are well past the cache, inputs are random.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "core/autograd.h"
#include "core/cuda.h"
#include "core/cuda/runtime.h"
#include "core/rng.h"
#include "distill/attention_kd.h"
#include "distill/batch_similarity_kd.h"
#include "distill/channel_kd.h"
#include "distill/inter_channel_kd.h"
#include "distill/inter_class_kd.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/local_kd.h"
#include "distill/pixel_kd.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/matmul.h"
#include "ops/pool2d.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

Tensor random(const Shape& shape, DType dtype) {
  Generator g(1);
  Tensor t = Tensor::empty(shape, dtype);
  fill_uniform_(t, g, -2.0, 2.0);
  return t.to(kGpu);
}

/// Median milliseconds of `run` between events.
double median_ms(const std::function<void()>& run) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cuda::check(cudaEventCreate(&begin), "cudaEventCreate");
  cuda::check(cudaEventCreate(&end), "cudaEventCreate");
  for (int i = 0; i < 5; ++i) run();
  std::vector<float> times;
  for (int i = 0; i < 30; ++i) {
    cuda::check(cudaEventRecord(begin, cuda::stream()), "cudaEventRecord");
    run();
    cuda::check(cudaEventRecord(end, cuda::stream()), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

double copy_gb_per_s = 0;

void report(const char* name, double bytes, const std::function<void()>& run) {
  const double ms = median_ms(run);
  const double rate = bytes / ms / 1e6;
  if (copy_gb_per_s == 0) copy_gb_per_s = rate;
  std::printf("{\"name\":\"%s\",\"ms\":%.4f,\"bytes\":%.0f,\"gb_per_s\":%.1f,\"share_of_copy\":%.3f}\n", name, ms,
              bytes, rate, rate / copy_gb_per_s);
}

void report_flops(const char* name, double flops, const std::function<void()>& run) {
  const double ms = median_ms(run);
  std::printf("{\"name\":\"%s\",\"ms\":%.4f,\"tflop_per_s\":%.1f}\n", name, ms, flops / ms / 1e9);
}

}  // namespace

int main() {
  static_cast<void>(std::setvbuf(stdout, nullptr, _IOLBF, 0));  // whoever stops it has what was measured
  if (cuda::device_count() == 0) {
    std::printf("{\"skipped\":\"%s\"}\n", cuda::describe_devices().c_str());
    return 0;
  }
  cuda::activate(kGpu, "bench");
  const NoGradGuard off;
  const Tensor big = random({16, 64, 256, 256}, DType::kBF16);
  const double size = static_cast<double>(big.numel()) * 2;
  const Tensor target = Tensor::empty_like(big);
  report("copy bf16", 2 * size, [&] { target.copy_(big); });
  report("relu bf16", 2 * size, [&] { static_cast<void>(ops::relu(big)); });
  report("add bf16", 3 * size, [&] { static_cast<void>(ops::add(big, target)); });

  const Tensor ones = Tensor::full({64}, 1.0, DType::kF32, kGpu);
  const Tensor zeros = Tensor::zeros({64}, DType::kF32, kGpu);
  report("batch_norm + relu training forward bf16", 3 * size, [&] {
    static_cast<void>(ops::batch_norm(big, ones, zeros, zeros, ones,
                                      {.training = true, .momentum = 0.0, .act = ops::Activation::kRelu}));
  });
  const Tensor w3 = random({64, 1, 3, 3}, DType::kF32);
  const ops::Conv2dOptions same{.stride = {1, 1}, .padding = {1, 1}, .dilation = {1, 1}, .groups = 64};
  report("depthwise 3x3 bf16", 2 * size, [&] { static_cast<void>(ops::conv2d(big, w3, {}, same)); });
  report("max_pool 3x3 stride 2 bf16", 1.25 * size, [&] {
    static_cast<void>(ops::max_pool2d(big, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}));
  });
  const Tensor small = random({16, 64, 128, 128}, DType::kBF16);
  report("resize_bilinear x2 bf16", 1.25 * size, [&] {
    static_cast<void>(ops::resize_bilinear(small, {256, 256}, false));
  });

  const Tensor s = random({16, 19, 512, 512}, DType::kF32);
  const Tensor t = random({16, 19, 512, 512}, DType::kF32);
  const double logits = static_cast<double>(s.numel()) * 4;
  std::vector<std::uint8_t> ids(16 * 512 * 512);
  Generator g(3);
  for (auto& id : ids) id = static_cast<std::uint8_t>(g.below(19));
  const Tensor labels = Tensor::from(ids, {16, 512, 512}).to(kGpu);
  const NoGradGuard on(true);
  s.set_requires_grad(true);
  report("cross_entropy forward + gradient f32", 2 * logits, [&] { static_cast<void>(ops::cross_entropy(s, labels)); });
  report("pixel_kd forward + gradient f32", 3 * logits, [&] { static_cast<void>(distill::pixel_kd(s, t)); });
  report("channel_kd forward + gradient f32", 3 * logits, [&] { static_cast<void>(distill::channel_kd(s, t)); });
  report("icsd forward + gradient f32", 3 * logits, [&] { static_cast<void>(distill::icsd(s, t)); });
  report("inter_channel_kd forward + gradient f32", 3 * logits,
         [&] { static_cast<void>(distill::inter_channel_kd(s, t)); });
  report("local_kd forward + gradient f32", 3 * logits, [&] { static_cast<void>(distill::local_kd(s, t)); });

  // Feature maps at stride 8 of such images.
  const Tensor fs = random({16, 256, 64, 64}, DType::kBF16);
  const Tensor ft = random({16, 256, 64, 64}, DType::kBF16);
  fs.set_requires_grad(true);
  const double features = static_cast<double>(fs.numel()) * 2;
  report("attention_kd forward + gradient bf16", 3 * features,
         [&] { static_cast<void>(distill::attention_kd(fs, ft)); });
  report("ka_adapt forward + gradient bf16", 3 * features, [&] { static_cast<void>(distill::ka_adapt(fs, ft)); });
  report("batch_similarity_kd forward + gradient bf16", 3 * features,
         [&] { static_cast<void>(distill::batch_similarity_kd(fs, ft)); });
  // 8 M c^2 per image: products of [D S] with itself and with a matrix.
  report_flops("ka_affinity forward + gradient bf16", 8.0 * 16 * 64 * 64 * 256 * 256,
               [&] { static_cast<void>(distill::ka_affinity(fs, ft)); });

  const Tensor a = random({8192, 8192}, DType::kBF16);
  report_flops("matmul bf16 8192^3", 2.0 * 8192 * 8192 * 8192, [&] { static_cast<void>(ops::matmul(a, a)); });
  const Tensor x = random({16, 256, 64, 64}, DType::kBF16);
  const Tensor w = random({256, 256, 3, 3}, DType::kF32);
  report_flops("conv2d 3x3 256 -> 256 bf16", 2.0 * 16 * 64 * 64 * 256 * 256 * 9, [&] {
    static_cast<void>(ops::conv2d(x, w, {}, {.stride = {1, 1}, .padding = {1, 1}}));
  });
  return 0;
}
