// Inference of one network, in turns: the module, the frozen plan, the exact plan, the int8 plan and, driven by compare_inference.py,
// other programs.
//   bench_inference NAME BATCH SIZE DTYPE ROUNDS [FILE.onnx]
// Prints the medians, and those of the ratios to the plan. "exact" is the plan without F32Math::kParts, the same in bf16. ROUNDS 0: runs
// one turn per line read ("module", "plan", "exact", "int8"), prints its milliseconds, and ends with the input. FILE.onnx: the same network
// for ONNX Runtime.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "apps/export.h"
#include "core/autocast.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/palettes.h"
#include "models/frozen_model.h"
#include "nn/int8_plan.h"
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
  const nn::Graph graph = models::logits_graph(*model);
  nn::FrozenPlan plan(graph, bf16 ? DType::kBF16 : DType::kF32);
  nn::FrozenPlan exact(graph, bf16 ? DType::kBF16 : DType::kF32, ops::F32Math::kExact);
  const NoGradGuard off;
  const Tensor x = Tensor::empty({batch, 3, size, size});
  Generator g(1);
  fill_normal_(x, g, 0.0, 1.0);
  nn::Calibrator calibrator(nn::inference_graph(graph));
  calibrator.add(x);
  const nn::Int8Plan int8(graph, calibrator.finish());
  const auto time = [&](const std::string& what) {
    const double start = monotonic_seconds();
    if (what == "module") {
      const AutocastGuard precision(bf16);
      static_cast<void>(model->forward(x).logits);
    } else if (what == "int8") {
      static_cast<void>(int8(x));
    } else {
      static_cast<void>(what == "plan" ? plan(x) : exact(x));
    }
    return 1e3 * (monotonic_seconds() - start);
  };
  if (rounds == 0) {
    for (std::string line; std::getline(std::cin, line);) {
      fmt::print("{:.3f}\n", time(line));
      std::fflush(stdout);
    }
    return 0;
  }
  std::map<std::string, std::vector<double>> times, ratios;
  for (int k = -2; k < rounds; ++k) {
    const double planned = time("plan");
    for (const char* what : {"module", "exact", "int8"}) {
      const double ms = time(what);
      if (k < 0) continue;  // to get warm
      times[what].push_back(ms);
      ratios[what].push_back(ms / planned);
    }
    if (k >= 0) times["plan"].push_back(planned);
  }
  const auto memory = plan.memory(x.shape());
  fmt::print(
      "{} {}x3x{}x{} {}, {} rounds: plan {:.1f} ms; module {:.1f} ms, x{:.2f}; exact {:.1f} ms, x{:.2f}; int8 {:.1f} ms, x{:.2f}; block {:.1f} of {:.1f} MiB\n",
      argv[1], batch, size, size, argv[4], rounds, median(times["plan"]), median(times["module"]),
      median(ratios["module"]), median(times["exact"]), median(ratios["exact"]), median(times["int8"]),
      median(ratios["int8"]), static_cast<double>(memory.block) / 1048576.0,
      static_cast<double>(memory.values) / 1048576.0);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "bench_inference: {}\n", e.what());
  return 1;
}
