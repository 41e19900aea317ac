// What this is: times every convolution of the benchmark networks (DeepLabV3-ResNet-50 teacher, MobileNetV2 student, output
//   stride 16, batch 4, 256x256) one by one: packed forward, training forward, data gradient, weight gradient.
// One JSON object per line: wall and processor milliseconds (smallest of the repetitions) and the share of the nominal
//   multiply-adds per second. On a shared machine trust the processor time; wait passively (OMP_WAIT_POLICY=passive).
// Usage: limbeck_bench_conv [teacher|student|all|stdin] [f32|bf16|both] [tiles|onednn|auto] [seconds per measurement]
//   stdin: reads lines "n c h w o kh kw stride padding dilation groups", for interleaving with another program.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/rng.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_kernels.h"
#include "ops/depthwise_kernels.h"
#include "ops/packed_conv2d.h"

using namespace limbeck;

namespace {

struct Layer {
  std::int64_t n, c, h, w, o, kh, kw, stride, padding, dilation, groups, count;
};

// batch, input channels, height, width, filters, kernel, stride, padding, dilation, groups, how often
const Layer kTeacher[] = {
    {4, 3, 256, 256, 64, 7, 7, 2, 3, 1, 1, 1},     {4, 64, 64, 64, 64, 1, 1, 1, 0, 1, 1, 1},
    {4, 64, 64, 64, 64, 3, 3, 1, 1, 1, 1, 3},      {4, 64, 64, 64, 256, 1, 1, 1, 0, 1, 1, 4},
    {4, 256, 64, 64, 64, 1, 1, 1, 0, 1, 1, 2},     {4, 256, 64, 64, 128, 1, 1, 1, 0, 1, 1, 1},
    {4, 128, 64, 64, 128, 3, 3, 2, 1, 1, 1, 1},    {4, 128, 32, 32, 512, 1, 1, 1, 0, 1, 1, 4},
    {4, 256, 64, 64, 512, 1, 1, 2, 0, 1, 1, 1},    {4, 512, 32, 32, 128, 1, 1, 1, 0, 1, 1, 3},
    {4, 128, 32, 32, 128, 3, 3, 1, 1, 1, 1, 3},    {4, 512, 32, 32, 256, 1, 1, 1, 0, 1, 1, 1},
    {4, 256, 32, 32, 256, 3, 3, 2, 1, 1, 1, 1},    {4, 256, 16, 16, 1024, 1, 1, 1, 0, 1, 1, 6},
    {4, 512, 32, 32, 1024, 1, 1, 2, 0, 1, 1, 1},   {4, 1024, 16, 16, 256, 1, 1, 1, 0, 1, 1, 5},
    {4, 256, 16, 16, 256, 3, 3, 1, 1, 1, 1, 6},    {4, 1024, 16, 16, 512, 1, 1, 1, 0, 1, 1, 1},
    {4, 512, 16, 16, 512, 3, 3, 1, 1, 1, 1, 1},    {4, 512, 16, 16, 2048, 1, 1, 1, 0, 1, 1, 3},
    {4, 1024, 16, 16, 2048, 1, 1, 1, 0, 1, 1, 1},  {4, 2048, 16, 16, 512, 1, 1, 1, 0, 1, 1, 2},
    {4, 512, 16, 16, 512, 3, 3, 1, 2, 2, 1, 2},    {4, 2048, 16, 16, 256, 1, 1, 1, 0, 1, 1, 1},
    {4, 2048, 16, 16, 256, 3, 3, 1, 6, 6, 1, 1},   {4, 2048, 16, 16, 256, 3, 3, 1, 12, 12, 1, 1},
    {4, 2048, 16, 16, 256, 3, 3, 1, 18, 18, 1, 1}, {4, 1280, 16, 16, 256, 1, 1, 1, 0, 1, 1, 1},
    {4, 256, 16, 16, 21, 1, 1, 1, 0, 1, 1, 1},
};
const Layer kStudent[] = {
    {4, 3, 256, 256, 32, 3, 3, 2, 1, 1, 1, 1},    {4, 32, 128, 128, 32, 3, 3, 1, 1, 1, 32, 1},
    {4, 32, 128, 128, 16, 1, 1, 1, 0, 1, 1, 1},   {4, 16, 128, 128, 96, 1, 1, 1, 0, 1, 1, 1},
    {4, 96, 128, 128, 96, 3, 3, 2, 1, 1, 96, 1},  {4, 96, 64, 64, 24, 1, 1, 1, 0, 1, 1, 1},
    {4, 24, 64, 64, 144, 1, 1, 1, 0, 1, 1, 2},    {4, 144, 64, 64, 144, 3, 3, 1, 1, 1, 144, 1},
    {4, 144, 64, 64, 24, 1, 1, 1, 0, 1, 1, 1},    {4, 144, 64, 64, 144, 3, 3, 2, 1, 1, 144, 1},
    {4, 144, 32, 32, 32, 1, 1, 1, 0, 1, 1, 1},    {4, 32, 32, 32, 192, 1, 1, 1, 0, 1, 1, 3},
    {4, 192, 32, 32, 192, 3, 3, 1, 1, 1, 192, 2}, {4, 192, 32, 32, 32, 1, 1, 1, 0, 1, 1, 2},
    {4, 192, 32, 32, 192, 3, 3, 2, 1, 1, 192, 1}, {4, 192, 16, 16, 64, 1, 1, 1, 0, 1, 1, 1},
    {4, 64, 16, 16, 384, 1, 1, 1, 0, 1, 1, 4},    {4, 384, 16, 16, 384, 3, 3, 1, 1, 1, 384, 4},
    {4, 384, 16, 16, 64, 1, 1, 1, 0, 1, 1, 3},    {4, 384, 16, 16, 96, 1, 1, 1, 0, 1, 1, 1},
    {4, 96, 16, 16, 576, 1, 1, 1, 0, 1, 1, 3},    {4, 576, 16, 16, 576, 3, 3, 1, 1, 1, 576, 3},
    {4, 576, 16, 16, 96, 1, 1, 1, 0, 1, 1, 2},    {4, 576, 16, 16, 160, 1, 1, 1, 0, 1, 1, 1},
    {4, 160, 16, 16, 960, 1, 1, 1, 0, 1, 1, 3},   {4, 960, 16, 16, 960, 3, 3, 1, 2, 2, 960, 3},
    {4, 960, 16, 16, 160, 1, 1, 1, 0, 1, 1, 2},   {4, 960, 16, 16, 320, 1, 1, 1, 0, 1, 1, 1},
    {4, 320, 16, 16, 256, 1, 1, 1, 0, 1, 1, 1},   {4, 512, 16, 16, 256, 1, 1, 1, 0, 1, 1, 1},
    {4, 256, 16, 16, 21, 1, 1, 1, 0, 1, 1, 1},
};

struct Time {
  double wall, processor;  // ms
};

double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class F>
Time measure(double seconds, const F& run) {
  using Clock = std::chrono::steady_clock;
  const auto wall = [] { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); };
  run();
  run();
  Time best{1e30, 1e30};
  const double start = wall();
  for (int i = 0; i < 3 || wall() - start < seconds; ++i) {
    const double w = wall();
    const double p = processor_seconds();
    run();
    best.wall = std::min(best.wall, 1e3 * (wall() - w));
    best.processor = std::min(best.processor, 1e3 * (processor_seconds() - p));
  }
  return best;
}

void bench(const char* net, const Layer& l, DType dtype, bool backward, double seconds) {
  const NoGradGuard no_grad;
  Generator g(1);
  const ops::Conv2dOptions options{{l.stride, l.stride}, {l.padding, l.padding}, {l.dilation, l.dilation}, l.groups};
  const auto filled = [&](const Shape& shape, DType type) {
    const Tensor t = Tensor::empty(shape);
    fill_uniform_(t, g, -1.0, 1.0);
    return t.copy_as(type);
  };
  const Tensor x = filled({l.n, l.c, l.h, l.w}, dtype);
  const Tensor w = filled({l.o, l.c / l.groups, l.kh, l.kw}, DType::kF32);
  const Tensor b = filled({l.o}, DType::kF32);
  const ops::PackedConv2d packed(w, b, options, ops::Activation::kRelu, dtype);
  const Tensor gy = filled(packed(x).shape(), dtype);
  const Tensor gx = Tensor::empty_like(x);
  const Tensor gw = Tensor::empty_like(w);
  const bool depthwise = ops::is_depthwise(x.shape(), w.shape(), options);

  const double gflop = 2e-9 * static_cast<double>(gy.numel() * w.size(1) * l.kh * l.kw);
  std::string line = fmt::format(
      R"({{"net":"{}","shape":[{},{},{},{},{},{},{},{},{},{},{}],"count":{},"dtype":"{}","gflop":{:.4f})", net, l.n,
      l.c, l.h, l.w, l.o, l.kh, l.kw, l.stride, l.padding, l.dilation, l.groups, l.count, name_of(dtype), gflop);
  const auto report = [&](const char* name, const auto& run) {
    const Time t = measure(seconds, run);
    line += fmt::format(R"(,"{0}_ms":{1:.4f},"{0}_cpu_ms":{2:.4f},"{0}_gflops":{3:.1f})", name, t.wall, t.processor,
                        1e3 * gflop / t.wall);
  };
  report("packed", [&] { static_cast<void>(packed(x)); });
  if (backward) {
    report("forward", [&] { static_cast<void>(ops::conv2d(x, w, {}, options)); });
    if (depthwise) {
      report("data",
             [&] { ops::kDepthwiseBackwardData(kCpu, dtype, gy.view(), w.view(), TensorView{}, options, gx.view()); });
      report("weights", [&] { ops::kDepthwiseBackwardWeights(kCpu, dtype, x.view(), gy.view(), options, gw.view()); });
    } else {
      report("data",
             [&] { ops::kConv2dBackwardData(kCpu, dtype, gy.view(), w.view(), TensorView{}, options, gx.view()); });
      report("weights", [&] { ops::kConv2dBackwardWeights(kCpu, dtype, x.view(), gy.view(), options, gw.view()); });
    }
  }
  std::puts((line + "}").c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, const char* standard) { return std::string(argc > i ? argv[i] : standard); };
  const std::string net = argument(1, "all");
  const std::string type = argument(2, "both");
  const std::string engine = argument(3, "auto");
  const double seconds = std::stod(argument(4, "0.1"));
  const ops::ConvEngineGuard guard(engine == "tiles"    ? ops::ConvEngine::kTiles
                                   : engine == "onednn" ? ops::ConvEngine::kOneDnn
                                                        : ops::ConvEngine::kAuto);
  const auto both = [&](const char* name, const Layer& layer, bool backward) {
    if (type != "bf16") bench(name, layer, DType::kF32, backward, seconds);
    if (type != "f32") bench(name, layer, DType::kBF16, backward, seconds);
  };
  if (net == "stdin") {
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream in(line);
      Layer l{};
      in >> l.n >> l.c >> l.h >> l.w >> l.o >> l.kh >> l.kw >> l.stride >> l.padding >> l.dilation >> l.groups;
      l.count = 1;
      if (in) both("stdin", l, true);
    }
    return 0;
  }
  if (net != "student") {
    for (const auto& l : kTeacher) both("teacher", l, false);
  }
  if (net != "teacher") {
    for (const auto& l : kStudent) both("student", l, true);
  }
  return 0;
}
