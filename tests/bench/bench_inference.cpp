// Inference of one network, in turns: the module, the frozen plan and, driven by compare_inference.py, other programs.
//   bench_inference NAME BATCH SIZE DTYPE ROUNDS [FILE.onnx]
// Prints the median of both and of their ratio. ROUNDS 0: runs one turn per line read ("module", "plan"), prints its milliseconds, and
// ends with the input. FILE.onnx: the same network for ONNX Runtime.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "apps/export.h"
#include "core/autocast.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/palettes.h"
#include "nn/frozen_plan.h"
#include "tests/harness/random_network.h"

using namespace limbeck;

namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 6) {
    fmt::print(stderr, "usage: bench_inference NAME BATCH SIZE f32|bf16 ROUNDS [FILE.onnx]\n");
    return 2;
  }
  const std::int64_t batch = std::stoll(argv[2]), size = std::stoll(argv[3]);
  const bool bf16 = std::strcmp(argv[4], "bf16") == 0;
  const int rounds = std::stoi(argv[5]);
  models::ModelSpec spec{.name = argv[1], .classes = 11, .output_stride = 16};
  if (spec.name.starts_with("deeplabv3_")) spec.variant = "vf";
  const auto model = test::random_network(spec);
  if (argc > 6) {
    apps::ModelCard card;
    card.spec = spec;
    card.classes = datasets::numbered_classes(11);
    apps::export_onnx(argv[6], *model, card,
                      {.batch = batch, .height = size, .width = size, .output = apps::ExportOutput::kLogits});
  }
  nn::FrozenPlan plan(nn::capture([&](const Tensor& x) { return model->forward(x).logits; }),
                      bf16 ? DType::kBF16 : DType::kF32);
  const NoGradGuard off;
  const Tensor x = Tensor::empty({batch, 3, size, size});
  Generator g(1);
  fill_normal_(x, g, 0.0, 1.0);
  const auto time = [&](bool planned) {
    const double start = monotonic_seconds();
    if (planned) {
      static_cast<void>(plan(x));
    } else {
      const AutocastGuard precision(bf16);
      static_cast<void>(model->forward(x).logits);
    }
    return 1e3 * (monotonic_seconds() - start);
  };
  for (int k = 0; k < 2; ++k) static_cast<void>(time(false) + time(true));
  if (rounds == 0) {
    for (std::string line; std::getline(std::cin, line);) {
      fmt::print("{:.3f}\n", time(line == "plan"));
      std::fflush(stdout);
    }
    return 0;
  }
  std::vector<double> module, planned, ratio;
  for (int k = 0; k < rounds; ++k) {
    module.push_back(time(false));
    planned.push_back(time(true));
    ratio.push_back(module.back() / planned.back());
  }
  const auto memory = plan.memory(x.shape());
  fmt::print(
      "{} {}x3x{}x{} {}: module {:.1f} ms, plan {:.1f} ms, median ratio {:.3f} ({} rounds); block {:.1f} of {:.1f} "
      "MiB\n",
      argv[1], batch, size, size, argv[4], median(module), median(planned), median(ratio), rounds,
      static_cast<double>(memory.block) / 1048576.0, static_cast<double>(memory.values) / 1048576.0);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "bench_inference: {}\n", e.what());
  return 1;
}
