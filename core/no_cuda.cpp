// What this is: core/cuda.h in a build without CUDA.
#include "core/cuda.h"
#include "core/input_lane.h"
#include "core/profile.h"
#include "core/readback.h"
#include "core/step_graph.h"
#include "core/tensor.h"

namespace limbeck::cuda {
namespace {

[[noreturn]] void missing(Device device) {
  fail<ConfigError>("device",
                    "{} is not available: this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use "
                    "--device cpu",
                    device.to_string());
}

}  // namespace

int device_count() noexcept { return 0; }
std::string describe_devices() { return "built without CUDA"; }
void activate(Device device, const char*) { missing(device); }
void synchronize(Device device) { missing(device); }
void* allocate(Device device, std::size_t) { missing(device); }
void deallocate(Device, void*, std::size_t) noexcept {}
AllocatorStats memory_stats(Device device) { missing(device); }
void reset_peak(Device device) { missing(device); }
void trim(Device device) { missing(device); }
void copy_to_device(Device device, void*, const void*, std::size_t) { missing(device); }
void copy_to_host(Device device, void*, const void*, std::size_t) { missing(device); }
void* start_reading(Device device, std::span<const void* const>) { missing(device); }
void finish_reading(void*, std::size_t, double*) {}
void copy_view(Device device, const TensorView&, const TensorView&) { missing(device); }
void fill_view(Device device, double, const TensorView&) { missing(device); }
void add_view(Device device, const TensorView&, const TensorView&) { missing(device); }

}  // namespace limbeck::cuda

// --- core/step_graph.h: no graph can be made, so nothing else of it is ever called ------------------------------------
namespace limbeck {

struct StepGraph::Impl {};

GraphMemory::GraphMemory(Device device) : device_(device) { cuda::missing(device); }
GraphMemory::~GraphMemory() = default;
StepGraph::StepGraph(std::shared_ptr<GraphMemory> memory) { cuda::missing(memory->device()); }
StepGraph::~StepGraph() = default;
std::string StepGraph::obstacle(Device device) { return fmt::format("the device is {}", device.to_string()); }
std::string StepGraph::rehearse(std::int64_t, const Work&) { return {}; }
std::string StepGraph::record(std::int64_t, const Work&) { return {}; }
void StepGraph::replay(std::int64_t) {}
std::size_t StepGraph::nodes() const noexcept { return 0; }
Tensor StepGraph::number(const NumberAt&) { return {}; }
Tensor StepGraph::numbers(const std::vector<NumberAt>&) { return {}; }
void StepGraph::random_stream(const StreamAt&) {}
const std::uint64_t* StepGraph::find_stream(std::uint64_t) { return nullptr; }
void StepGraph::on_replay(Effect) {}
void StepGraph::refuse(const std::string&) {}

// --- core/input_lane.h, core/profile.h ----------------------------------------------------------------------------------
void send_input(const Tensor&, const Tensor& destination) { cuda::missing(destination.device()); }
ProfileRange::ProfileRange(const char*) noexcept {}
ProfileRange::~ProfileRange() = default;

}  // namespace limbeck
