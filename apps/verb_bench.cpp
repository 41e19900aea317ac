// The verb `bench`: times the distillation step that the project is measured by: a frozen DeepLabV3-ResNet-50 teacher
// (output stride 16), a MobileNetV2 student with a 1x1 head, channel-wise distillation on the logits + cross entropy, SGD. `bench student`
// leaves out the teacher: forward and backward pass and update of the student.
// Weights are random: the time does not depend on them. Compare with scripts/bench_vs_pytorch.sh. The step's floor on this
// machine (apps/floor.h) is printed beside its time.
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/cli.h"
#include "apps/floor.h"
#include "core/autocast.h"
#include "core/autograd.h"
#include "core/cuda.h"
#include "core/json.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/parse_number.h"
#include "core/rng.h"
#include "core/step_graph.h"
#include "distill/distiller.h"
#include "models/summary.h"
#include "models/zoo.h"
#include "nn/sgd.h"

namespace limbeck::apps {
namespace {

models::ModelSpec teacher_spec(std::int64_t classes) {
  models::ModelSpec spec;
  spec.name = "deeplabv3_resnet50";
  spec.variant = "vf";  // ASPP rates 6, 12, 18 at output stride 16, no auxiliary head
  spec.classes = classes;
  return spec;
}

models::ModelSpec student_spec(std::int64_t classes) {
  models::ModelSpec spec;
  spec.name = "mobilenet_v2_seg";
  spec.classes = classes;
  return spec;
}

std::shared_ptr<distill::Distiller> make_objective(std::int64_t classes, bool with_teacher) {
  Generator g(1);
  if (!with_teacher)
    return std::make_shared<distill::Distiller>(models::make_model(student_spec(classes), g), nullptr,
                                                std::vector<distill::Term>());
  const Config term = Config::parse("{loss: channel_kd, tau: 4}", "bench");
  std::vector<distill::Term> terms(1);
  terms[0].name = "cwd";
  terms[0].loss = distill::make_loss(term);
  terms[0].weight = distill::WeightSchedule(3.0);
  return std::make_shared<distill::Distiller>(models::make_model(student_spec(classes), g),
                                              models::make_model(teacher_spec(classes), g), std::move(terms));
}

/// Of the whole step, from the layers' sizes and two measurements.
Floor step_floor(const BenchArgs& args, const Shape& images, const MachineSpeed& speed, DType dtype) {
  Floor floor = training_floor(models::summarize(student_spec(args.classes), images).layers, dtype, speed);
  if (args.what == "step")
    floor += inference_floor(models::summarize(teacher_spec(args.classes), images).layers, dtype, speed);
  return floor;
}

/// A graph of the step, rehearsed and recorded.
std::unique_ptr<StepGraph> record_step(Device device, const std::function<void(std::int64_t)>& work) {
  std::string why = StepGraph::obstacle(device);
  std::unique_ptr<StepGraph> graph;
  if (why.empty()) {
    graph = std::make_unique<StepGraph>(std::make_shared<GraphMemory>(device));
    why = graph->rehearse(0, [&] { work(0); });
  }
  if (why.empty()) why = graph->record(0, [&] { work(0); });
  if (!why.empty()) fail<ConfigError>("bench --cuda-graph", "the step cannot be recorded: {}", why);
  return graph;
}

/// The step, and what it works on.
class MeasuredStep {
 public:
  /// `begin`: when the verb began.
  MeasuredStep(const BenchArgs& args, Device device, double begin)
      : args_(args), device_(device), begin_(begin), parameters_(device) {
    const auto size = parse_size(args.size, "bench --size");
    objective_ = make_objective(args.classes, args.what == "step");
    std::vector<nn::ParameterGroup> groups(1);
    groups[0].weight_decay = 5e-4;
    nn::assign_parameters(groups, *objective_, [](const nn::NamedTensor&) { return 0; });
    optimizer_ = std::make_unique<nn::Sgd>(std::move(groups), nn::SgdOptions{.momentum = 0.9});
    objective_->train();

    Generator g(2);
    images_ = Tensor::empty({args.batch, 3, size[0], size[1]}, DType::kF32, device);
    fill_normal_(images_, g, 0.0, 1.0);
    std::vector<std::uint8_t> ids(static_cast<std::size_t>(args.batch * size[0] * size[1]));
    for (auto& id : ids) id = static_cast<std::uint8_t>(g.below(static_cast<std::uint64_t>(args.classes)));
    labels_ = Tensor::from(ids, {args.batch, size[0], size[1]}).to(device);
  }

  /// The steps before the clock starts, and the recording if one is wanted.
  void warm_up() {
    for (int k = 0; k < args_.warmup; ++k) step();
    if (args_.cuda_graph) graph_ = record_step(device_, [this](std::int64_t k) { work(k); });
    device_.is_cuda() ? cuda::reset_peak(device_) : CpuAllocator::get().reset_peak();  // of choosing algorithms
  }

  /// Milliseconds of every one of `count` steps.
  std::vector<double> time(int count) {
    std::vector<double> ms;
    for (int i = 0; i < count; ++i) {
      const double start = monotonic_seconds();
      step();
      ms.push_back(1e3 * (monotonic_seconds() - start));
    }
    return ms;
  }

  [[nodiscard]] AllocatorStats memory() const {
    return device_.is_cuda() ? cuda::memory_stats(device_) : CpuAllocator::get().stats();
  }
  [[nodiscard]] const Shape& images() const noexcept { return images_.shape(); }
  [[nodiscard]] double loss() const noexcept { return loss_; }
  [[nodiscard]] double first() const noexcept { return first_; }  ///< seconds until the first step was done

 private:
  void work(std::int64_t k) {
    optimizer_->zero_grad();
    distill::Objective o;
    {
      const AutocastGuard precision(args_.dtype == "bf16");
      o = objective_->forward(images_, labels_, k, 1000);
    }
    o.total.backward();
    optimizer_->step(0.01);
    total_ = o.total.detach();
  }
  void step() {
    graph_ ? graph_->replay(done_) : work(done_);
    ++done_;
    loss_ = total_.item();
    if (first_ == 0) first_ = monotonic_seconds() - begin_;
  }

  BenchArgs args_;
  Device device_;
  double begin_;
  nn::ParameterDevice parameters_;
  std::shared_ptr<distill::Distiller> objective_;
  std::unique_ptr<nn::Sgd> optimizer_;
  Tensor images_, labels_, total_;
  std::unique_ptr<StepGraph> graph_;
  std::int64_t done_ = 0;
  double loss_ = 0;
  double first_ = 0;
};

/// Largest resident size of this process so far, in MiB.
double peak_rss_mb() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

/// What was measured.
struct BenchResult {
  Device device;
  std::array<std::int64_t, 2> size{};
  std::vector<double> ms;  // of every step
  double first = 0;        // seconds until the first step was done
  double loss = 0;
  double peak_mb = 0;
  std::size_t peak_tensors = 0;  // bytes
  std::uint64_t system_allocations = 0;
  MachineSpeed speed;
  Floor floor;
};

void print_result(const BenchArgs& args, const BenchResult& r) {
  std::vector<double> sorted = r.ms;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted.empty() ? 0 : sorted[sorted.size() / 2];
  if (args.json) {
    fmt::print("{}\n", JsonObject()
                           .add("what", args.what == "step" ? "distillation step" : "student's step")
                           .add("device", r.device.to_string())
                           .add("dtype", args.dtype)
                           .add("cuda_graph", args.cuda_graph)
                           .add("ms", std::span<const double>(r.ms))
                           .add("median_ms", median)
                           .add("first_step_seconds", r.first)
                           .add("peak_rss_mb", r.peak_mb)
                           .add("peak_tensor_mb", static_cast<double>(r.peak_tensors) / 1048576.0)
                           .add("system_allocations", r.system_allocations)
                           .add("loss", r.loss)
                           .add("gflop", r.floor.flops / 1e9)
                           .add("gigabytes", r.floor.bytes / 1e9)
                           .add("matmul_gflops", r.speed.flops_per_second / 1e9)
                           .add("copy_gigabytes_per_second", r.speed.bytes_per_second / 1e9)
                           .add("floor_ms", 1e3 * r.floor.seconds)
                           .str());
  } else {
    fmt::print(
        "{} step, batch {} of {}x{}: median {:.0f} ms ({}), {:.1f} images/s, peak memory {:.0f} MiB, "
        "{} system allocations\n",
        args.dtype, args.batch, r.size[0], r.size[1], median, format_count(args.steps, "step"),
        1e3 * static_cast<double>(args.batch) / std::max(median, 1e-9), r.peak_mb, r.system_allocations);
    fmt::print(
        "floor {:.0f} ms: {:.0f} Gflop at {:.0f} Gflop/s (matrix product), {:.2f} GB at {:.1f} GB/s (copy); "
        "the step reaches {:.0f} % of it\n",
        1e3 * r.floor.seconds, r.floor.flops / 1e9, r.speed.flops_per_second / 1e9, r.floor.bytes / 1e9,
        r.speed.bytes_per_second / 1e9, 1e5 * r.floor.seconds / std::max(median, 1e-9));
  }
}

/// For each line "N" on standard input N steps and a line of JSON with their times, to take turns with another program.
int serve(const BenchArgs& args, Device device, MeasuredStep& step) {
  const auto say = [](const JsonObject& line) {
    fmt::print("{}\n", line.str());
    std::fflush(stdout);
  };
  say(JsonObject().add("ready", true).add("device", device.to_string()).add("first_step_seconds", step.first()));
  for (std::string line; std::getline(std::cin, line);) {
    const std::optional<int> count = parse_number<int>(line);
    if (!count || *count < 1) fail<ConfigError>("bench --serve", "got '{}', expected a number of steps", line);
    const std::vector<double> ms = step.time(*count);
    say(JsonObject()
            .add("what", args.what)
            .add("dtype", args.dtype)
            .add("ms", std::span<const double>(ms))
            .add("peak_rss_mb", peak_rss_mb())
            .add("peak_tensor_mb", static_cast<double>(step.memory().peak) / 1048576.0)
            .add("loss", step.loss()));
  }
  return 0;
}

}  // namespace

int run_bench(const BenchArgs& args) {
  const double begin = monotonic_seconds();
  if (args.what != "step" && args.what != "student")
    fail<ConfigError>("bench", "unknown benchmark '{}', expected step or student", args.what);
  if (args.dtype != "f32" && args.dtype != "bf16")
    fail<ConfigError>("bench", "--dtype {}, expected f32 or bf16", args.dtype);
  const Device device = open_device(args.device);
  MeasuredStep step(args, device, begin);
  step.warm_up();
  if (args.serve) return serve(args, device, step);

  const AllocatorStats before = step.memory();
  const std::vector<double> ms = step.time(args.steps);
  const AllocatorStats after = step.memory();
  const DType dtype = args.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  const double peak_mb = peak_rss_mb();  // before speed is measured, which takes memory too
  const MachineSpeed speed = measure_speed(device, dtype);
  print_result(args, {device, parse_size(args.size, "bench --size"), ms, step.first(), step.loss(), peak_mb, after.peak,
                      after.system_allocations - before.system_allocations, speed,
                      step_floor(args, step.images(), speed, dtype)});
  return 0;
}

}  // namespace limbeck::apps
