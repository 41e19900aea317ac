// What this is: times forward + backward of the fused losses at the sizes they have in training.
// What it is not: the benchmark of a whole step (`limbeck bench step`), or of the other ops (bench_ops.cpp).
//
//   bench_losses [--filter TEXT] [--runs 9]    one JSON object per line: name, median, best, and the memory it moves
//   bench_losses --serve                       for each line "NAME COUNT" on standard input runs NAME and prints its times;
//                                              compare_losses.py uses it to take turns with another program
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "distill/channel_kd.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/ka_autoencoder_loss.h"
#include "distill/pixel_kd.h"
#include "ops/cross_entropy.h"

using namespace limbeck;

namespace {

struct Maps {
  Tensor student, teacher, labels;
  Tensor code = {};  ///< half the student's channels; only the autoencoder's loss differentiates it
};

Maps make_maps(const Shape& shape, DType type) {
  Generator g(11);
  const Tensor s = Tensor::empty(shape);
  const Tensor t = Tensor::empty(shape);
  fill_normal_(s, g, 0, 2);
  fill_normal_(t, g, 0, 2);
  std::vector<std::uint8_t> ids(static_cast<std::size_t>(shape[0] * shape[2] * shape[3]));
  for (auto& id : ids) {
    const bool ignored = g.uniform() < 0.05;
    id = ignored ? std::uint8_t{255} : static_cast<std::uint8_t>(g.below(static_cast<std::uint64_t>(shape[1])));
  }
  Maps m{s.copy_as(type), t.copy_as(type), Tensor::from(ids, {shape[0], shape[2], shape[3]})};
  m.student.set_requires_grad(true);
  m.code = Tensor::empty({shape[0], (shape[1] + 1) / 2, shape[2], shape[3]});
  fill_normal_(m.code, g, 0, 1);
  m.code = m.code.copy_as(type);
  m.code.set_requires_grad(true);
  return m;
}

struct Benchmark {
  std::string name;
  Shape shape;
  DType type;
  double maps_moved;  ///< reads and writes of a map of this size, at least
  std::function<Tensor(const Maps&)> loss;
};

std::vector<Benchmark> benchmarks() {
  const auto ce = [](const Maps& m) { return ops::cross_entropy(m.student, m.labels); };
  const auto kd = [](const Maps& m) { return distill::pixel_kd(m.student, m.teacher, {.tau = 4}); };
  const auto cwd = [](const Maps& m) { return distill::channel_kd(m.student, m.teacher, {.tau = 4}); };
  std::vector<Benchmark> all;
  for (const Shape& shape : {Shape{4, 19, 128, 256}, Shape{4, 19, 512, 512}}) {
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const std::string tail = fmt::format("_{}x{}x{}x{}_{}", shape[0], shape[1], shape[2], shape[3], name_of(type));
      all.push_back({"cross_entropy" + tail, shape, type, 2, ce});
      all.push_back({"pixel_kd" + tail, shape, type, 3, kd});
      all.push_back({"channel_kd" + tail, shape, type, 5, cwd});
    }
  }
  all.push_back({"channel_kd_4x512x64x64_f32", {4, 512, 64, 64}, DType::kF32, 5, cwd});
  const Shape features{4, 256, 64, 128};
  const auto ae = [](const Maps& m) { return distill::ka_autoencoder_loss(m.student, m.code, m.teacher); };
  const auto adapt = [](const Maps& m) { return distill::ka_adapt(m.student, m.teacher); };
  const auto affinity = [](distill::KaAffinityReduce reduce) {
    return [reduce](const Maps& m) { return distill::ka_affinity(m.student, m.teacher, {.reduce = reduce}); };
  };
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const std::string tail = fmt::format("_4x256x64x128_{}", name_of(type));
    all.push_back({"ka_autoencoder" + tail, features, type, 4, ae});
    all.push_back({"ka_adapt" + tail, features, type, 7, adapt});
    all.push_back({"ka_affinity" + tail, features, type, 5, affinity(distill::KaAffinityReduce::kMeanSquare)});
    all.push_back({"ka_affinity_rownorm" + tail, features, type, 7, affinity(distill::KaAffinityReduce::kRowNorm)});
    all.push_back({"ka_affinity_tdl" + tail, features, type, 7, affinity(distill::KaAffinityReduce::kTdl)});
  }
  return all;
}

double run_ms(const Benchmark& b, const Maps& maps) {
  const auto start = std::chrono::steady_clock::now();
  backward(b.loss(maps));
  maps.student.set_grad({});
  maps.code.set_grad({});
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void print_times(const Benchmark& b, int runs) {
  const Maps maps = make_maps(b.shape, b.type);
  for (int i = 0; i < 2; ++i) run_ms(b, maps);
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(run_ms(b, maps));
  std::sort(times.begin(), times.end());
  const double bytes = b.maps_moved * static_cast<double>(b.shape.numel()) * static_cast<double>(size_of(b.type));
  const double best = times.front();
  fmt::print("{{\"name\": \"{}\", \"threads\": {}, \"runs\": {}, \"median_ms\": {:.4f}, \"best_ms\": {:.4f}, "
             "\"best_gb_per_s\": {:.2f}}}\n",
             b.name, max_threads(), runs, times[times.size() / 2], best, bytes / best * 1e-6);
  std::fflush(stdout);
}

int serve() {
  const auto all = benchmarks();
  std::string line;
  std::string current;
  Maps maps;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string name;
    int count = 1;
    words >> name >> count;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Benchmark& b) { return b.name == name; });
    if (found == all.end()) fail("bench_losses", "no benchmark \"{}\"", name);
    if (name != current) {
      maps = make_maps(found->shape, found->type);
      run_ms(*found, maps);
      current = name;
    }
    std::string times;
    for (int i = 0; i < count; ++i) times += fmt::format("{}{:.4f}", i == 0 ? "" : ", ", run_ms(*found, maps));
    fmt::print("{{\"name\": \"{}\", \"ms\": [{}]}}\n", name, times);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  int runs = 9;
  bool serving = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool last = i + 1 >= argc;
    if (word == "--serve") {
      serving = true;
    } else if (word == "--filter" && !last) {
      filter = argv[++i];
    } else if (word == "--runs" && !last) {
      runs = std::max(1, std::atoi(argv[++i]));
    } else {
      fmt::print(stderr, "usage: bench_losses [--filter TEXT] [--runs N] | --serve\n");
      return 2;
    }
  }
  try {
    if (serving) return serve();
    for (const Benchmark& b : benchmarks()) {
      if (b.name.find(filter) != std::string::npos) print_times(b, runs);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return static_cast<int>(e.exit_code());
  }
  return 0;
}
