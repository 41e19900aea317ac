// Step graphs on CUDA's stream capture.
//
// The numbers of a step reach the device by one small copy in front of its launch. Launches are queued several steps ahead
// of the device, so the pinned memory that the copy reads may not be written again before it has been read: there is a ring
// of blocks, each with an event behind its last copy.
#include "core/step_graph.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "core/cuda.h"
#include "core/cuda/allocator.h"
#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/profile.h"
#include "core/tensor.h"

namespace limbeck {
namespace {

constexpr std::size_t kStreams = 32;
constexpr std::size_t kNumbers = 1024;
constexpr std::size_t kHead = kStreams * sizeof(std::uint64_t);  // the streams lie in front of the numbers
constexpr std::size_t kBytes = kHead + kNumbers * sizeof(float);

/// Pinned memory that one step's numbers travel from.
struct Parcel {
  char* bytes = nullptr;
  cuda::Event sent;
  Parcel() {
    void* p = nullptr;
    cuda::check(cudaMallocHost(&p, kBytes), "cudaMallocHost");
    bytes = static_cast<char*>(p);
  }
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;
  ~Parcel() { static_cast<void>(cudaFreeHost(bytes)); }
};

std::string describe(cudaError_t status, const char* call) {
  static_cast<void>(cudaGetLastError());
  return fmt::format("{}: {}", call, cudaGetErrorString(status));
}

}  // namespace

// --- memory ---------------------------------------------------------------------------------------------------------

GraphMemory::GraphMemory(Device device) : device_(device), pool_(cuda::Allocator::new_pool()) {
  cuda::activate(device, "graph memory");
}
GraphMemory::~GraphMemory() { cuda::allocator(device_.index).release_pool(pool_); }

// --- the graph ------------------------------------------------------------------------------------------------------

struct StepGraph::Impl {
  enum class State { kEmpty, kRehearsing, kRecording, kReady };

  std::shared_ptr<GraphMemory> memory;
  Tensor block;  // on the device: the streams, then the numbers
  std::array<Parcel, 8> ring;
  std::size_t turn = 0;
  State state = State::kEmpty;
  std::int64_t step = 0;  // that is rehearsed or recorded
  std::vector<NumberAt> numbers;
  std::vector<StreamAt> streams;
  std::vector<Effect> effects;
  std::string refusal;
  cudaGraphExec_t exec = nullptr;
  std::size_t nodes = 0;

  explicit Impl(std::shared_ptr<GraphMemory> m)
      : memory(std::move(m)),
        block(Tensor::empty({static_cast<std::int64_t>(kBytes / sizeof(float))}, DType::kF32, memory->device())) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (exec != nullptr) static_cast<void>(cudaGraphExecDestroy(exec));  // before the memory that it uses
  }

  void begin(State what, std::int64_t at) {
    state = what;
    step = at;
    numbers.clear();
    streams.clear();
    effects.clear();
    refusal.clear();
  }

  void send_numbers(std::int64_t at) {
    Parcel& parcel = ring.at(turn++ % ring.size());
    parcel.sent.wait();
    for (std::size_t i = 0; i < streams.size(); ++i) {
      const std::uint64_t word = streams[i](at);
      std::memcpy(parcel.bytes + i * sizeof word, &word, sizeof word);
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto number = static_cast<float>(numbers[i](at));
      std::memcpy(parcel.bytes + kHead + i * sizeof number, &number, sizeof number);
    }
    cuda::check(cudaMemcpyAsync(block.data<float>(), parcel.bytes, kHead + numbers.size() * sizeof(float),
                                cudaMemcpyHostToDevice, cuda::stream()),
                "cudaMemcpyAsync");
    parcel.sent.record();
  }

  void launch(std::int64_t at) {
    send_numbers(at);
    cuda::check(cudaGraphLaunch(exec, cuda::stream()), "cudaGraphLaunch");
  }

  /// Turns what was captured into something that can be launched; returns why not.
  std::string instantiate(cudaGraph_t graph) {
    if (exec != nullptr) static_cast<void>(cudaGraphExecDestroy(std::exchange(exec, nullptr)));
    cudaError_t status = cudaGraphGetNodes(graph, nullptr, &nodes);
    if (status != cudaSuccess) return describe(status, "cudaGraphGetNodes");
    status = cudaGraphInstantiate(&exec, graph, 0);
    if (status != cudaSuccess) {
      exec = nullptr;
      return describe(status, "cudaGraphInstantiate");
    }
    status = cudaGraphUpload(exec, cuda::stream());  // now, not in the first replay
    return status == cudaSuccess ? std::string() : describe(status, "cudaGraphUpload");
  }
};

/// While it lives, the thread allocates from the graph's pool and its work sees the graph.
class StepGraph::Scope {
 public:
  explicit Scope(StepGraph& graph) : pool_(graph.impl_->memory->pool()), previous_(current_) { current_ = &graph; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { current_ = previous_; }

 private:
  cuda::PoolGuard pool_;
  StepGraph* previous_;
};

StepGraph::StepGraph(std::shared_ptr<GraphMemory> memory) {
  const std::string why = obstacle(memory->device());
  LIMBECK_CHECK(why.empty(), "step graph", "{}", why);
  cuda::activate(memory->device(), "step graph");
  impl_ = std::make_unique<Impl>(std::move(memory));
}
StepGraph::~StepGraph() = default;

std::string StepGraph::obstacle(Device device) {
  if (!device.is_cuda()) return fmt::format("the device is {}", device.to_string());
  if (cuda::synchronous()) return "LIMBECK_SYNC=1 waits after every kernel";
  if (!cuda::allocator(device.index).caching()) return "LIMBECK_CUDA_CACHE=0 gives every tensor memory of its own";
  return {};
}

std::string StepGraph::rehearse(std::int64_t step, const Work& work) {
  cuda::activate(impl_->memory->device(), "step graph");
  impl_->begin(Impl::State::kRehearsing, step);
  const Scope scope(*this);
  work();
  impl_->state = Impl::State::kEmpty;
  return impl_->refusal;
}

std::string StepGraph::record(std::int64_t step, const Work& work) {
  cuda::activate(impl_->memory->device(), "step graph");
  impl_->begin(Impl::State::kRecording, step);
  std::string why;
  cudaGraph_t graph = nullptr;
  {
    const Scope scope(*this);
    // Other threads (those that load pictures) may go on as they like.
    cuda::check(cudaStreamBeginCapture(cuda::stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      work();
    } catch (const Error& e) {
      why = e.what();
    } catch (...) {  // out of the host's memory: nothing to go on with
      static_cast<void>(cudaStreamEndCapture(cuda::stream(), &graph));
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      throw;
    }
    const cudaError_t status = cudaStreamEndCapture(cuda::stream(), &graph);
    if (why.empty() && status != cudaSuccess) why = describe(status, "cudaStreamEndCapture");
  }
  cuda::activate(impl_->memory->device(), "step graph");
  if (why.empty()) why = impl_->instantiate(graph);
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  if (!why.empty()) {
    static_cast<void>(cudaGetLastError());
    for (const Effect& effect : impl_->effects) effect(-1);
    impl_->state = Impl::State::kEmpty;
    return why;
  }
  impl_->state = Impl::State::kReady;
  impl_->launch(step);
  return {};
}

void StepGraph::replay(std::int64_t step) {
  LIMBECK_CHECK(impl_->state == Impl::State::kReady, "step graph", "nothing has been recorded");
  cuda::activate(impl_->memory->device(), "step graph");
  const ProfileRange range("replay");
  for (const Effect& effect : impl_->effects) effect(1);
  impl_->launch(step);
}

std::size_t StepGraph::nodes() const noexcept { return impl_->nodes; }

// --- for the work that is recorded --------------------------------------------------------------------------------------

Tensor StepGraph::numbers(const std::vector<NumberAt>& at) {
  Impl& impl = *impl_;
  LIMBECK_CHECK(impl.numbers.size() + at.size() <= kNumbers, "step graph", "more than {} numbers change by step",
                kNumbers);
  const std::size_t first = kHead / sizeof(float) + impl.numbers.size();
  const Tensor out = impl.block.alias({static_cast<std::int64_t>(at.size())}, {1}, static_cast<std::int64_t>(first));
  for (std::size_t i = 0; i < at.size(); ++i) {
    impl.numbers.push_back(at[i]);
    // Not fill_(): the numbers share one storage, and with it a version, but later ones overwrite none before them.
    const TensorView place = out.alias({1}, {1}, static_cast<std::int64_t>(i)).view();
    if (impl.state == Impl::State::kRehearsing) cuda::fill_view(impl.memory->device(), at[i](impl.step), place);
  }
  return out;
}

Tensor StepGraph::number(const NumberAt& at) { return numbers({at}).alias({}, {}); }

void StepGraph::random_stream(const StreamAt& at) {
  const std::uint64_t now = at(impl_->step);
  const auto same = [&](const StreamAt& known) { return known(impl_->step) == now; };
  if (std::any_of(impl_->streams.begin(), impl_->streams.end(), same)) return;
  LIMBECK_CHECK(impl_->streams.size() < kStreams, "step graph", "more than {} streams of random numbers", kStreams);
  impl_->streams.push_back(at);
}

const std::uint64_t* StepGraph::find_stream(std::uint64_t now) {
  const auto& streams = impl_->streams;
  const auto found =
      std::find_if(streams.begin(), streams.end(), [&](const StreamAt& at) { return at(impl_->step) == now; });
  if (found == streams.end()) {
    refuse("draws random numbers of which the recording does not know how they depend on the step");
    return nullptr;
  }
  if (impl_->state == Impl::State::kRehearsing) return nullptr;
  return reinterpret_cast<const std::uint64_t*>(impl_->block.data<float>()) + (found - streams.begin());
}

void StepGraph::on_replay(Effect effect) { impl_->effects.push_back(std::move(effect)); }

void StepGraph::refuse(const std::string& what) {
  if (impl_->refusal.empty()) impl_->refusal = fmt::format("the step {} (after {})", what, cuda::current_op());
  if (impl_->state == Impl::State::kRecording) fail(cuda::current_op(), "the step {}, which cannot be recorded", what);
}

}  // namespace limbeck
