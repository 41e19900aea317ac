// What this is: times forward + backward of the fused losses at the sizes they have in training, on the CPU or on a GPU.
// What it is not: the benchmark of a whole step (`limbeck bench step`), or of the other ops (the programs beside it).
//
//   bench_losses [--filter TEXT] [--runs 9]    one JSON object per line: name, median, best, and the memory it moves
//   bench_losses --serve                       for each line "NAME COUNT" on standard input runs NAME so often and prints its times (on a
//                                              GPU their mean); compare_losses.py uses it to take turns with another program
//   bench_losses --list                        the names
//   --cpu: processor time instead of wall time, for one thread on a machine that others load
//   --device cuda:N: larger maps, well past the cache, between events; --small: tiny ones, for a rehearsal whose numbers mean nothing
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
#include "core/cuda.h"
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
#include "tests/bench/device_timer.h"

using namespace limbeck;

namespace {

Device device = kCpu;  // --device
bool small = false;    // --small

struct Maps {
  Tensor student, teacher, labels, margin;
  Tensor code = {};  ///< half the student's channels; only the autoencoder's loss differentiates it
};

Tensor random_map(const Shape& shape, DType type, Generator& g, double deviation) {
  const Tensor t = Tensor::empty(shape, type, device);
  fill_normal_(t, g, 0, deviation);
  return t;
}

Maps make_maps(const Shape& shape, DType type) {
  Generator g(11);
  Maps m;
  m.student = random_map(shape, type, g, 2);
  m.teacher = random_map(shape, type, g, 2);
  std::vector<std::uint8_t> ids(static_cast<std::size_t>(shape[0] * shape[2] * shape[3]));
  const std::uint64_t classes = std::min<std::uint64_t>(static_cast<std::uint64_t>(shape[1]), 19);
  for (auto& id : ids) {
    const bool ignored = g.uniform() < 0.05;
    id = ignored ? std::uint8_t{255} : static_cast<std::uint8_t>(g.below(classes));
  }
  m.labels = Tensor::from(ids, {shape[0], shape[2], shape[3]}).to(device);
  m.margin = Tensor::full({shape[1]}, -0.5, DType::kF32, device);
  m.code = random_map({shape[0], (shape[1] + 1) / 2, shape[2], shape[3]}, type, g, 1);
  m.student.set_requires_grad(true);
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

Benchmark benchmark_of(const Row& row, const Shape& shape, DType type) {
  return {fmt::format("{}_{}x{}x{}x{}_{}", row.name, shape[0], shape[1], shape[2], shape[3], name_of(type)), shape,
          type, row.maps_moved, row.loss};
}

std::vector<Benchmark> benchmarks_of_cpu() {
  std::vector<Benchmark> all;
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Row& row : kOnLogits) all.push_back(benchmark_of(row, {4, 19, 128, 256}, type));
    for (const Row& row : kOnFeatures) all.push_back(benchmark_of(row, {4, 256, 64, 128}, type));
    for (const Row& row : std::span(kOnLogits).first(3)) all.push_back(benchmark_of(row, {4, 19, 512, 512}, type));
  }
  return all;
}

/// Whether rivals need matrices over all pairs of positions for it, which limits the size of its maps.
bool over_pairs(const Row& row) {
  const std::string_view name = row.name;
  return name == "ka_affinity" || name == "ka_affinity_rownorm" || name == "pairwise2_kd";
}

/// Those that docs/gpu.md has goals for come first: whoever stops the program early has them.
std::vector<Benchmark> benchmarks_of_gpu() {
  const Shape logits = small ? Shape{2, 19, 8, 8} : Shape{16, 19, 512, 512};        // 159 MB in bf16
  const Shape features = small ? Shape{2, 16, 8, 8} : Shape{16, 256, 128, 128};     // 134 MB
  const Shape few_positions = small ? Shape{2, 16, 8, 8} : Shape{16, 256, 64, 64};  // bound by arithmetic
  std::vector<Benchmark> first;
  std::vector<Benchmark> others;
  const auto add = [&](const Row& row, const Shape& shape, DType type, bool goal) {
    (goal ? first : others).push_back(benchmark_of(row, shape, type));
  };
  for (const DType type : {DType::kBF16, DType::kF32}) {
    for (const Row& row : kOnLogits) {
      const std::string_view name = row.name;
      add(row, logits, type, name == "channel_kd" || name == "pixel_kd" || name == "icsd");
    }
    for (const Row& row : kOnFeatures)
      add(row, over_pairs(row) ? few_positions : features, type, std::string_view(row.name) == "ka_affinity");
  }
  first.insert(first.end(), others.begin(), others.end());
  return first;
}

std::vector<Benchmark> benchmarks() { return device.is_cuda() ? benchmarks_of_gpu() : benchmarks_of_cpu(); }

bool processor_time = false;  // --cpu

/// Milliseconds on the clock that was asked for.
double now_ms() {
  if (processor_time) return static_cast<double>(std::clock()) * (1e3 / CLOCKS_PER_SEC);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run(const Benchmark& b, const Maps& maps) {
  backward(b.loss(maps));
  maps.student.set_grad({});
  maps.code.set_grad({});
}

/// Milliseconds of each of `count` runs; on a GPU their mean.
std::vector<double> times_of(const Benchmark& b, const Maps& maps, int count) {
  if (device.is_cuda()) return {bench::device_ms(count, [&] { run(b, maps); })};
  std::vector<double> times;
  for (int i = 0; i < count; ++i) {
    const double start = now_ms();
    run(b, maps);
    times.push_back(now_ms() - start);
  }
  return times;
}

void print_times(const Benchmark& b, int runs) {
  const Maps maps = make_maps(b.shape, b.type);
  for (int i = 0; i < 2; ++i) run(b, maps);
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(times_of(b, maps, 1).front());
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
  const Tensor from = Tensor::zeros({4, 256, 64, 128}, DType::kF32, device);
  const Tensor to = Tensor::zeros({4, 256, 64, 128}, DType::kF32, device);
  double best = 1e300;
  for (int i = 0; i < runs; ++i) {
    const double start = now_ms();
    to.copy_(from);
    if (device.is_cuda()) cuda::synchronize(device);
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
    if (!maps.student.defined() || maps.student.shape() != found->shape || maps.student.dtype() != found->type) {
      maps = {};  // before there are others
      maps = make_maps(found->shape, found->type);
    }
    if (name != current) run(*found, maps);
    current = name;
    fmt::print("{{\"name\": \"{}\", \"ms\": [{:.4f}]}}\n", name, fmt::join(times_of(*found, maps, count), ", "));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  int runs = 9;
  bool serving = false;
  bool listing = false;
  std::string place = "cpu";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool last = i + 1 >= argc;
    if (word == "--serve") {
      serving = true;
    } else if (word == "--cpu") {
      processor_time = true;
    } else if (word == "--small") {
      small = true;
    } else if (word == "--list") {
      listing = true;
    } else if (word == "--device" && !last) {
      place = argv[++i];
    } else if (word == "--filter" && !last) {
      filter = argv[++i];
    } else if (word == "--runs" && !last) {
      runs = std::max(1, std::atoi(argv[++i]));
    } else {
      fmt::print(stderr,
                 "usage: bench_losses [--cpu] [--device D [--small]] [--filter TEXT] [--runs N] | --serve | --list\n");
      return 2;
    }
  }
  try {
    device = Device::parse(place);
    if (listing) {
      for (const Benchmark& b : benchmarks()) fmt::print("{}\n", b.name);
      return 0;
    }
    if (device.is_cuda()) cuda::activate(device, "bench");
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
