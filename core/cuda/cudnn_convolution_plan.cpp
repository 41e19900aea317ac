#include "core/cuda/cudnn_convolution_plan.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <span>
#include <utility>

#include "core/choices.h"
#include "core/cuda/allocator.h"
#include "core/cuda/clock.h"
#include "core/cuda/cudnn_convolution_graph.h"
#include "core/cuda/runtime.h"
#include "core/lru_cache.h"

namespace limbeck::cuda {
namespace {

constexpr std::size_t kWorkspaceLimit = std::size_t{1} << 30U;
constexpr std::int64_t kMostProposals = 16;  // of each kind
constexpr std::size_t kMostTimed = 4;

// Deprecated since cuDNN could be asked about devices that are not there; without them earlier versions 9 refuse.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
constexpr auto kGraphHandle = CUDNN_ATTR_OPERATIONGRAPH_HANDLE;
constexpr auto kPlanHandle = CUDNN_ATTR_EXECUTION_PLAN_HANDLE;
#pragma GCC diagnostic pop

/// What cuDNN says of an engine.
struct Engine {
  BackendDescriptor configuration;
  std::int64_t number = 0;  // place in the ranking
  std::int64_t index = 0;
  bool repeats = false;
  bool exact = false;     // neither rounds factors nor adds in a narrower type
  bool plain = false;     // see Note [engines that suit]
  bool compiled = false;  // while the plan is made

  Engine(BackendDescriptor c, std::int64_t place) : configuration(std::move(c)), number(place) {
    const BackendDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t raw = engine.raw();
    configuration.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
    index = engine.number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
    std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
    const std::int64_t noted = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                          static_cast<std::int64_t>(notes.size()), notes.data());
    std::array<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT> ways{};
    const std::int64_t known = engine.get(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                          static_cast<std::int64_t>(ways.size()), ways.data());
    const auto has = [&](cudnnBackendNumericalNote_t note) {
      return std::find(notes.begin(), notes.begin() + noted, note) != notes.begin() + noted;
    };
    repeats = !has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) && !has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    exact = !has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) && !has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
    plain = has(CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP);
    compiled =
        std::find(ways.begin(), ways.begin() + known, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != ways.begin() + known;
  }

  [[nodiscard]] bool suits(const ConvolutionProblem& p) const {
    const bool may_round = p.dtype == DType::kBF16 || tf32_allowed();
    return repeats && (exact || may_round) && !(plain && p.fused());
  }
};

/// Adds what cuDNN proposes for a graph; nothing if it has no answer.
void propose(const PlanTarget& target, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
             std::vector<Engine>& engines) {
  BackendDescriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set_descriptor(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set_one(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  target.enter_heuristics(heuristics);
  if (!heuristics.try_finalize()) return;
  std::vector<BackendDescriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < kMostProposals; ++i) {
    configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(configurations.back().raw());
  }
  const std::int64_t count =
      heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, kMostProposals, raw.data());
  for (std::int64_t i = 0; i < std::min(count, kMostProposals); ++i) {
    engines.emplace_back(std::move(configurations[static_cast<std::size_t>(i)]),
                         static_cast<std::int64_t>(engines.size()));
  }
}

/// How a problem is named in core/choices.h: with the card, the library and what it may round.
std::string choice_key(const ConvolutionProblem& problem) {
  static auto* const version = cudnn_library().function<decltype(cudnnGetVersion)>("cudnnGetVersion");
  return fmt::format("convolution | {} | cuDNN {} | tf32 {} | {}", static_cast<const char*>(properties().name),
                     version(), tf32_allowed() ? "on" : "off", fmt::join(problem.numbers(), " "));
}

/// The best of the plans, as it was found before, perhaps by another process; see Note [ranked or timed].
std::shared_ptr<const ConvolutionPlan> choose(const ConvolutionProblem& problem) {
  const PlanTarget target = PlanTarget::current_device();
  const auto first = [](std::vector<ConvolutionPlan> plans) {
    return plans.empty() ? std::shared_ptr<const ConvolutionPlan>()
                         : std::make_shared<const ConvolutionPlan>(std::move(plans[0]));
  };
  // While a graph is being captured nothing can be timed.
  if (choices::ranked()) return first(ConvolutionPlan::candidates(problem, target, 1));
  const std::string name = choice_key(problem);
  if (const auto known = choices::find(name)) {
    if (auto plan = first(ConvolutionPlan::candidates(problem, target, 1, known))) return plan;
  }
  if (capturing()) return first(ConvolutionPlan::candidates(problem, target, 1));

  std::vector<ConvolutionPlan> plans = ConvolutionPlan::candidates(problem, target, kMostTimed);
  if (plans.size() < 2) return first(std::move(plans));
  ConvolutionPlan* best = nullptr;
  float least = std::numeric_limits<float>::infinity();
  for (ConvolutionPlan& plan : plans) {
    const float ms = plan.milliseconds();
    if (best != nullptr && ms >= least) continue;
    least = ms;
    best = &plan;
  }
  choices::remember(name, best->number());
  return std::make_shared<const ConvolutionPlan>(std::move(*best));
}

}  // namespace

std::array<std::int64_t, 18> ConvolutionProblem::numbers() const {
  std::array<std::int64_t, 18> out{};
  std::size_t i = 0;
  const auto put = [&](std::int64_t v) { out.at(i++) = v; };
  put(static_cast<std::int64_t>(pass) * 16 + static_cast<std::int64_t>(dtype));
  put((bias ? 4 : 0) + (residual ? 2 : 0) + (relu ? 1 : 0));
  put(static_cast<std::int64_t>(most));
  for (const Shape* s : {&x, &w}) std::for_each(s->begin(), s->end(), put);
  put(y[1]);
  for (const auto* pair : {&stride, &padding, &dilation}) std::for_each(pair->begin(), pair->end(), put);
  return out;
}

PlanTarget PlanTarget::current_device() {
  PlanTarget target;
  target.handle_ = cudnn_handle();
  return target;
}

PlanTarget PlanTarget::described(const std::string& json) {
  PlanTarget target;
  target.properties_.emplace(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target.properties_->set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                          static_cast<std::int64_t>(json.size()), json.data());
  target.properties_->finalize();
  return target;
}

void PlanTarget::enter_graph(BackendDescriptor& graph) const {
  if (!properties_) graph.set_one(kGraphHandle, CUDNN_TYPE_HANDLE, handle_);
}
void PlanTarget::enter_heuristics(BackendDescriptor& heuristics) const {
  if (properties_) heuristics.set_descriptor(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, properties_->raw());
}
void PlanTarget::enter_plan(BackendDescriptor& plan) const {
  if (properties_) {
    plan.set_descriptor(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, properties_->raw());
  } else {
    plan.set_one(kPlanHandle, CUDNN_TYPE_HANDLE, handle_);
  }
}

std::vector<ConvolutionPlan> ConvolutionPlan::candidates(const ConvolutionProblem& problem, const PlanTarget& target,
                                                         std::size_t most, std::optional<std::int64_t> only) {
  std::vector<ConvolutionPlan> plans;
  const auto graph = convolution_graph(problem, target);
  if (graph == nullptr) return plans;
  std::vector<Engine> engines;
  propose(target, graph->back().raw(), CUDNN_HEUR_MODE_A, engines);
  const auto suiting = std::count_if(engines.begin(), engines.end(), [&](const Engine& e) { return e.suits(problem); });
  const bool named = only && *only < static_cast<std::int64_t>(engines.size());
  if (!named && static_cast<std::size_t>(suiting) < most) {
    propose(target, graph->back().raw(), CUDNN_HEUR_MODE_FALLBACK, engines);
  }
  std::vector<const Engine*> order;
  for (const bool plain : {false, true}) {
    for (const Engine& engine : engines) {
      if (engine.plain == plain && engine.suits(problem)) order.push_back(&engine);
    }
  }
  for (const Engine* engine : order) {
    if (plans.size() == most) break;
    if (only && *only != engine->number) continue;
    if (!plans.empty() && (engine->compiled || engine->plain)) continue;  // see Note [engines that suit]
    BackendDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    target.enter_plan(plan);
    plan.set_descriptor(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine->configuration.raw());
    if (!plan.try_finalize()) continue;
    const std::int64_t workspace = plan.number(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
    if (workspace < 0 || static_cast<std::size_t>(workspace) > kWorkspaceLimit) continue;
    ConvolutionPlan made(problem, graph, std::move(plan));
    made.workspace_ = static_cast<std::size_t>(workspace);
    made.number_ = engine->number;
    made.engine_ = engine->index;
    made.compiled_ = engine->compiled;
    plans.push_back(std::move(made));
  }
  return plans;
}

void ConvolutionPlan::run(const void* x, const void* w, const void* y, const void* bias, const void* residual,
                          void* workspace) const {
  std::array<std::int64_t, 5> ids{kTensorX, kTensorW, kTensorY};
  std::array<const void*, 5> addresses{x, w, y};
  std::size_t count = 3;
  const auto add = [&](bool wanted, ConvolutionTensor id, const void* address) {
    if (!wanted) return;
    ids.at(count) = id;
    addresses.at(count++) = address;
  };
  add(problem_.bias, kTensorBias, bias);
  add(problem_.residual, kTensorResidual, residual);
  BackendDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set_numbers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span(ids).first(count));
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<std::int64_t>(count),
           addresses.data());
  pack.set_one(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.finalize();
  LIMBECK_CUDNN(cudnnBackendExecute, cudnn_handle(), plan_.raw(), pack.raw());
}

float ConvolutionPlan::milliseconds() const {
  const ConvolutionProblem& p = problem_;
  const auto bytes = [&](const Shape& s) { return static_cast<std::size_t>(s.numel()) * size_of(p.dtype); };
  const Scratch x(bytes(p.x));
  const Scratch w(bytes(p.w));
  const Scratch y(bytes(p.y));
  const Scratch bias(p.bias ? static_cast<std::size_t>(p.y[1]) * sizeof(float) : 0);
  const Scratch residual(p.residual ? bytes(p.y) : 0);
  const Scratch space(workspace_);
  return Clock().milliseconds(
      [&] { run(x.as<void>(), w.as<void>(), y.as<void>(), bias.as<void>(), residual.as<void>(), space.as<void>()); });
}

std::shared_ptr<const ConvolutionPlan> convolution_plan(const ConvolutionProblem& problem) {
  struct Key {
    std::array<std::int64_t, 20> numbers;
  } key{};
  key.numbers[0] = current_device().index;
  key.numbers[1] = choices::ranked() ? 1 : 0;
  const auto numbers = problem.numbers();
  std::copy(numbers.begin(), numbers.end(), key.numbers.begin() + 2);
  static std::mutex mutex;
  static auto* plans = new LruCache<Key, std::shared_ptr<const ConvolutionPlan>>(1024);
  const std::lock_guard lock(mutex);
  return plans->get(key, [&] { return choose(problem); });
}

}  // namespace limbeck::cuda
