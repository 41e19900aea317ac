// What this is: times forward + backward of the fused losses at the sizes they have in training.
// What it is not: the benchmark of a whole step (`limbeck bench step`), or of the other ops (the programs beside it).
//
//   bench_losses [--filter TEXT] [--runs 9]    one JSON object per line: name, median, best, and the memory it moves
//   bench_losses --serve                       for each line "NAME COUNT" on standard input runs NAME and prints its times;
//                                              compare_losses.py uses it to take turns with another program
//   --cpu: processor time instead of wall time, for one thread on a machine that others load
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "distill/attention_kd.h"
#include "distill/batch_similarity_kd.h"
#include "distill/channel_kd.h"
#include "distill/csd_kd.h"
#include "distill/feature_mse.h"
#include "distill/ifvd.h"
#include "distill/inter_channel_kd.h"
#include "distill/inter_class_kd.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/ka_autoencoder_loss.h"
#include "distill/local_kd.h"
#include "distill/ofd_kd.h"
#include "distill/pairwise_kd.h"
#include "distill/pixel_kd.h"
#include "ops/cross_entropy.h"

using namespace limbeck;

namespace {

struct Maps {
  Tensor student, teacher, labels, margin;
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
    id = ignored
             ? std::uint8_t{255}
             : static_cast<std::uint8_t>(g.below(std::min<std::uint64_t>(static_cast<std::uint64_t>(shape[1]), 19)));
  }
  Maps m{s.copy_as(type), t.copy_as(type), Tensor::from(ids, {shape[0], shape[2], shape[3]}),
         Tensor::empty({shape[1]})};
  m.margin.fill_(-0.5);
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

/// A loss and the maps it must move: what forward and backward read, and the gradient they write.
struct Row {
  const char* name;
  double maps_moved;
  std::function<Tensor(const Maps&)> loss;
};

const Row kOnLogits[] = {
    {"cross_entropy", 2, [](const Maps& m) { return ops::cross_entropy(m.student, m.labels); }},
    {"pixel_kd", 3, [](const Maps& m) { return distill::pixel_kd(m.student, m.teacher, {.tau = 4}); }},
    {"channel_kd", 5, [](const Maps& m) { return distill::channel_kd(m.student, m.teacher, {.tau = 4}); }},
    {"icsd", 4, [](const Maps& m) { return distill::icsd(m.student, m.teacher); }},
    {"inter_channel_kd", 4, [](const Maps& m) { return distill::inter_channel_kd(m.student, m.teacher); }},
    {"csd_kd", 3, [](const Maps& m) { return distill::csd_kd(m.student, m.teacher); }},
    {"local_kd", 3, [](const Maps& m) { return distill::local_kd(m.student, m.teacher); }},
};

Tensor affinity(const Maps& m, distill::KaAffinityReduce reduce) {
  return distill::ka_affinity(m.student, m.teacher, {.reduce = reduce});
}

const Row kOnFeatures[] = {
    {"feature_mse", 3, [](const Maps& m) { return distill::feature_mse(m.student, m.teacher); }},
    {"channel_kd", 5, [](const Maps& m) { return distill::channel_kd(m.student, m.teacher, {.tau = 4}); }},
    {"attention_kd", 4, [](const Maps& m) { return distill::attention_kd(m.student, m.teacher); }},
    {"pairwise_kd", 3, [](const Maps& m) { return distill::pairwise_kd(m.student, m.teacher); }},
    {"pairwise2_kd", 3,  // windows of 2 x 2
     [](const Maps& m) {
       return distill::pairwise_kd(m.student, m.teacher, {.scale = 0, .kernel = 2, .detach_norm = false});
     }},
    {"batch_similarity_kd", 4, [](const Maps& m) { return distill::batch_similarity_kd(m.student, m.teacher); }},
    {"ifvd", 5, [](const Maps& m) { return distill::ifvd(m.student, m.teacher, m.labels); }},
    {"ofd_kd", 3, [](const Maps& m) { return distill::ofd_kd(m.student, m.teacher, m.margin); }},
    {"ka_autoencoder", 4, [](const Maps& m) { return distill::ka_autoencoder_loss(m.student, m.code, m.teacher); }},
    {"ka_adapt", 7, [](const Maps& m) { return distill::ka_adapt(m.student, m.teacher); }},
    {"ka_affinity", 5, [](const Maps& m) { return affinity(m, distill::KaAffinityReduce::kMeanSquare); }},
    {"ka_affinity_rownorm", 7, [](const Maps& m) { return affinity(m, distill::KaAffinityReduce::kRowNorm); }},
    {"ka_affinity_tdl", 7, [](const Maps& m) { return affinity(m, distill::KaAffinityReduce::kTdl); }},
};

std::vector<Benchmark> benchmarks() {
  std::vector<Benchmark> all;
  const auto add = [&](const Row& row, const Shape& shape, DType type) {
    all.push_back({fmt::format("{}_{}x{}x{}x{}_{}", row.name, shape[0], shape[1], shape[2], shape[3], name_of(type)),
                   shape, type, row.maps_moved, row.loss});
  };
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Row& row : kOnLogits) add(row, {4, 19, 128, 256}, type);
    for (const Row& row : kOnFeatures) add(row, {4, 256, 64, 128}, type);
    for (const Row& row : std::span(kOnLogits).first(3)) add(row, {4, 19, 512, 512}, type);
  }
  return all;
}

bool processor_time = false;  // --cpu

/// Milliseconds on the clock that was asked for.
double now_ms() {
  if (processor_time) return static_cast<double>(std::clock()) * (1e3 / CLOCKS_PER_SEC);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double run_ms(const Benchmark& b, const Maps& maps) {
  const double start = now_ms();
  backward(b.loss(maps));
  maps.student.set_grad({});
  maps.code.set_grad({});
  return now_ms() - start;
}

void print_times(const Benchmark& b, int runs) {
  const Maps maps = make_maps(b.shape, b.type);
  for (int i = 0; i < 2; ++i) run_ms(b, maps);
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(run_ms(b, maps));
  std::sort(times.begin(), times.end());
  const double bytes = b.maps_moved * static_cast<double>(b.shape.numel()) * static_cast<double>(size_of(b.type));
  const double best = times.front();
  fmt::print(
      "{{\"name\": \"{}\", \"threads\": {}, \"runs\": {}, \"median_ms\": {:.4f}, \"best_ms\": {:.4f}, "
      "\"best_gb_per_s\": {:.2f}}}\n",
      b.name, max_threads(), runs, times[times.size() / 2], best, bytes / best * 1e-6);
  std::fflush(stdout);
}

/// Bytes per second of a copy between two large maps (read and written both counted): the floor of everything here.
void print_copy(int runs) {
  const Tensor from = Tensor::zeros({4, 256, 64, 128});
  const Tensor to = Tensor::zeros({4, 256, 64, 128});
  double best = 1e300;
  for (int i = 0; i < runs; ++i) {
    const double start = now_ms();
    to.copy_(from);
    best = std::min(best, now_ms() - start);
  }
  const double bytes = 2.0 * static_cast<double>(from.numel()) * sizeof(float);
  fmt::print("{{\"name\": \"copy\", \"threads\": {}, \"best_ms\": {:.4f}, \"best_gb_per_s\": {:.2f}}}\n", max_threads(),
             best, bytes / best * 1e-6);
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
    } else if (word == "--cpu") {
      processor_time = true;
    } else if (word == "--filter" && !last) {
      filter = argv[++i];
    } else if (word == "--runs" && !last) {
      runs = std::max(1, std::atoi(argv[++i]));
    } else {
      fmt::print(stderr, "usage: bench_losses [--cpu] [--filter TEXT] [--runs N] | [--cpu] --serve\n");
      return 2;
    }
  }
  try {
    if (serving) return serve();
    if (std::string("copy").find(filter) != std::string::npos) print_copy(runs);
    for (const Benchmark& b : benchmarks()) {
      if (b.name.find(filter) != std::string::npos) print_times(b, runs);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return static_cast<int>(e.exit_code());
  }
  return 0;
}
