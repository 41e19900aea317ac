// What cuDNN offers for the convolutions of the networks, asked without a GPU: it makes plans for cards that are described by
// numbers (Note [plans without a device] in core/cuda/cudnn_convolution_plan.h). Every descriptor, graph and attribute is
// checked by cuDNN itself that way; nothing runs.
#include <doctest/doctest.h>

#include <set>

#include "core/autograd.h"
#include "core/cuda/cudnn_convolution_plan.h"
#include "nn/layers.h"
#include "nn/tracer.h"
#include "tests/cases/convolutions.h"
#include "tests/harness/meta_model.h"

using namespace limbeck;
using cuda::ConvolutionPass;
using cuda::ConvolutionPlan;
using cuda::ConvolutionProblem;
using cuda::PlanTarget;

namespace {

struct Card {
  const char* name;
  int capability;  // 900 is 9.0
  int multiprocessors;
  int shared_memory;  // most bytes per block
  int threads;        // per multiprocessor
  int blocks;         // per multiprocessor
  int cache;          // bytes of second level
  std::int64_t memory;
};
constexpr Card kH100{"NVIDIA H100 80GB HBM3", 900, 132, 232448, 2048, 32, 52428800, 85520809984};
constexpr Card kA100{"NVIDIA A100-SXM4-80GB", 800, 108, 166912, 2048, 32, 41943040, 85094629376};
constexpr Card kT4{"Tesla T4", 750, 40, 65536, 1024, 16, 4194304, 15843721216};

std::string json(const Card& c) {
  return fmt::format(
      R"({{"deviceVer": {}, "cudaDeviceId": 0, "driverVer": 13000, "maxGridSize": [2147483647, 65535, 65535],)"
      R"( "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": {}, "warpSize": 32,)"
      R"( "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": {}, "reservedSharedMemoryPerBlock": 1024,)"
      R"( "maxRegistersPerSM": 65536, "maxCtasPerSM": {}, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": {},)"
      R"( "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1, "smClockRateKHz": 1980000,)"
      R"( "memClockRateKHz": 2619000, "l2CacheSize": {}, "deviceName": "{}", "totalGlobalMem": {}}})",
      c.capability, c.multiprocessors, c.shared_memory, c.blocks, c.threads, c.cache, c.name, c.memory);
}

/// True, with a printed reason, if this cuDNN cannot be asked.
bool no_answers() {
  static const std::string reason = [] {
    try {
      static auto* const version = cuda::cudnn_library().function<decltype(cudnnGetVersion)>("cudnnGetVersion");
      return version() < 90800 ? fmt::format("cuDNN {} answers for present devices only", version()) : std::string();
    } catch (const Error& e) {
      return std::string(e.what());
    }
  }();
  if (reason.empty()) return false;
  MESSAGE("skipped: ", reason);
  return true;
}

/// Problems that differ, in the order in which they came.
class Problems {
 public:
  void add(const ConvolutionProblem& p) {
    if (seen_.insert(p.numbers()).second) all_.push_back(p);
  }
  /// The three passes of a training step.
  void add_training(ConvolutionProblem p, bool bias) {
    for (const auto pass : {ConvolutionPass::kForward, ConvolutionPass::kData, ConvolutionPass::kWeights}) {
      p.pass = pass;
      p.bias = bias && pass == ConvolutionPass::kForward;
      add(p);
    }
  }
  /// As layers of a frozen network.
  void add_frozen(ConvolutionProblem p, double most) {
    p.bias = true;
    for (const bool relu : {false, true}) {
      p.relu = relu;
      p.most = relu ? most : 0;
      for (const bool residual : {false, true}) {
        p.residual = residual && most == 0;  // no network of ours adds before a limit
        add(p);
      }
    }
  }
  [[nodiscard]] const std::vector<ConvolutionProblem>& all() const noexcept { return all_; }

 private:
  std::set<std::array<std::int64_t, 18>> seen_;
  std::vector<ConvolutionProblem> all_;
};

ConvolutionProblem problem(DType dtype, const Shape& x, const Shape& w, const Shape& y, const ops::Conv2dOptions& o) {
  return {ConvolutionPass::kForward, dtype, x, w, y, o.stride, o.padding, o.dilation};
}

/// The dense convolutions of a network with a batch of 512x512 pictures.
std::vector<std::pair<ConvolutionProblem, bool>> layers_of(const models::ModelSpec& spec, std::int64_t batch,
                                                           DType dtype) {
  const auto model = test::on_meta(spec);
  const NoGradGuard off;
  nn::LayerTracer tracer;
  (void)model->forward(Tensor::empty({batch, 3, 512, 512}, DType::kF32, kMeta));
  std::map<std::string, const nn::Conv2d*> by_name;
  for (const auto& [name, module] : model->named_modules()) {
    if (const auto* layer = dynamic_cast<const nn::Conv2d*>(module)) by_name[name] = layer;
  }
  std::vector<std::pair<ConvolutionProblem, bool>> found;
  for (const nn::LayerRecord& record : tracer.records()) {
    const auto at = by_name.find(record.name);
    if (at == by_name.end() || at->second->weight().size(1) == 1) continue;  // others, and depthwise ones
    const nn::Conv2d& layer = *at->second;
    found.emplace_back(problem(dtype, record.input, layer.weight().shape(), record.output, layer.options()),
                       layer.bias().defined());
  }
  REQUIRE(found.size() > 10);
  return found;
}

const models::ModelSpec kTeacher{.name = "deeplabv3_resnet50", .classes = 19, .output_stride = 16};
const models::ModelSpec kStudent{.name = "deeplabv3_mobilenet_v2", .classes = 19, .output_stride = 16};

std::string describe(const ConvolutionProblem& p) {
  constexpr const char* kNames[] = {"forward", "data", "weights"};
  return fmt::format("{} {} x {} w {} y {}{}{}{}", kNames[static_cast<int>(p.pass)], name_of(p.dtype), p.x, p.w, p.y,
                     p.bias ? " + bias" : "", p.residual ? " + residual" : "", p.relu ? " relu" : "");
}

}  // namespace

TEST_SUITE_BEGIN("convolution_plans");

TEST_CASE("every convolution of a training step has a plan, in both types, on an H100 and an A100") {
  if (no_answers()) return;
  for (const Card& card : {kH100, kA100}) {
    const PlanTarget target = PlanTarget::described(json(card));
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      Problems problems;
      for (const auto& spec : {kTeacher, kStudent}) {
        for (const auto& [p, bias] : layers_of(spec, 16, dtype)) problems.add_training(p, bias);
      }
      CHECK(problems.all().size() > 100);
      for (const ConvolutionProblem& p : problems.all()) {
        INFO(std::string(card.name), ": ", describe(p));
        const auto plans = ConvolutionPlan::candidates(p, target, 4);
        REQUIRE(!plans.empty());
        // What cuDNN has to compile first delays the first step, so there must be something else.
        CHECK(!plans[0].compiled());
        for (std::size_t i = 1; i < plans.size(); ++i) CHECK(plans[i].number() != plans[i - 1].number());
      }
    }
  }
}

TEST_CASE("a frozen ResNet adds bias, residual and activation in one pass, by engines that are ready") {
  if (no_answers()) return;
  for (const Card& card : {kH100, kA100}) {
    const PlanTarget target = PlanTarget::described(json(card));
    Problems problems;
    for (const auto& [p, bias] : layers_of(kTeacher, 16, DType::kBF16)) problems.add_frozen(p, 0);
    for (const ConvolutionProblem& p : problems.all()) {
      INFO(std::string(card.name), ": ", describe(p));
      const auto plans = ConvolutionPlan::candidates(p, target, 4);
      REQUIRE(plans.size() == 4);
      for (const ConvolutionPlan& plan : plans) CHECK(!plan.compiled());
    }
  }
}

TEST_CASE("in f32 most of its layers do so, too; the others fuse in rounded products only") {
  if (no_answers()) return;
  const PlanTarget target = PlanTarget::described(json(kH100));
  Problems problems;
  for (const auto& [p, bias] : layers_of(kTeacher, 16, DType::kF32)) problems.add_frozen(p, 0);
  std::size_t fused = 0;
  for (const ConvolutionProblem& p : problems.all()) {
    if (!ConvolutionPlan::candidates(p, target, 1).empty()) ++fused;
  }
  CHECK(2 * fused > problems.all().size());
  CHECK(fused < problems.all().size());  // else the op's other path is no longer needed
}

TEST_CASE("a limit above the activation is compiled by cuDNN, and by one engine only") {
  if (no_answers()) return;
  const PlanTarget target = PlanTarget::described(json(kH100));
  ConvolutionProblem p = problem(DType::kBF16, {16, 24, 128, 128}, {144, 24, 1, 1}, {16, 144, 128, 128}, {});
  p.bias = p.relu = true;
  p.most = 6;
  CHECK(p.bias_dtype() == DType::kF32);
  const auto plans = ConvolutionPlan::candidates(p, target, 4);
  REQUIRE(plans.size() == 1);
  CHECK(plans[0].compiled());
}

TEST_CASE("an engine is found again by its place in the ranking") {
  if (no_answers()) return;
  const PlanTarget target = PlanTarget::described(json(kH100));
  const ConvolutionProblem p =
      problem(DType::kBF16, {16, 256, 32, 32}, {256, 256, 3, 3}, {16, 256, 32, 32}, {.padding = {1, 1}});
  const auto plans = ConvolutionPlan::candidates(p, target, 4);
  REQUIRE(plans.size() == 4);
  for (const ConvolutionPlan& plan : plans) {
    const auto again = ConvolutionPlan::candidates(p, target, 4, plan.number());
    REQUIRE(again.size() == 1);
    CHECK(again[0].number() == plan.number());
    CHECK(again[0].engine() == plan.engine());
    CHECK(again[0].workspace() == plan.workspace());
  }
  CHECK(ConvolutionPlan::candidates(p, target, 4, 1000).empty());
}

TEST_CASE("the shapes that the ops are tested with have plans") {
  if (no_answers()) return;
  for (const Card& card : {kH100, kA100}) {
    const PlanTarget target = PlanTarget::described(json(card));
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      for (const auto& c : test::dense_convolutions()) {
        INFO(std::string(card.name), ": ", std::string(c.label));
        Problems problems;
        const Shape y = ops::conv2d_output_shape("test", c.x, c.w, c.options);
        problems.add_training(problem(dtype, c.x, c.w, y, c.options), c.bias);
        for (const ConvolutionProblem& p : problems.all()) {
          // The op adds a bias in a pass of its own where there is no plan with it.
          if (p.fused()) continue;
          CAPTURE(describe(p));
          CHECK(!ConvolutionPlan::candidates(p, target, 1).empty());
        }
      }
    }
  }
}

TEST_CASE("Turing has f32 and no bf16") {
  if (no_answers()) return;
  const PlanTarget target = PlanTarget::described(json(kT4));
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    Problems problems;
    for (const auto& [p, bias] : layers_of(kStudent, 4, dtype)) problems.add_training(p, false);
    std::size_t with_plan = 0;
    for (const ConvolutionProblem& p : problems.all()) {
      if (!ConvolutionPlan::candidates(p, target, 1).empty()) ++with_plan;
    }
    if (dtype == DType::kF32) CHECK(with_plan == problems.all().size());
    if (dtype == DType::kBF16) CHECK(with_plan < problems.all().size());
  }
}

TEST_CASE("a description that is none is an error") {
  if (no_answers()) return;
  CHECK_THROWS_WITH_AS((void)PlanTarget::described("{}"), doctest::Contains("cudnnBackendFinalize"), Error);
}

TEST_SUITE_END();
