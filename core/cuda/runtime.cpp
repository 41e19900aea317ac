// What this is: core/cuda/runtime.h, and the part of core/cuda.h that is about devices.
#include "core/cuda/runtime.h"

#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string_view>

#include "core/cuda.h"
#include "core/step_graph.h"

namespace limbeck::cuda {
namespace {

constexpr int kMaxDevices = 128;  // Device::index is an int8

struct DeviceState {
  cudaStream_t stream = nullptr;
  cudaDeviceProp properties{};
};

thread_local Device active{DeviceType::kCuda, -1};
thread_local const char* active_op = "cuda";

/// The state of a device, made at its first use and never destroyed: tensors with static storage may outlive anything.
DeviceState& state_of(int index) {
  static auto* states = new std::array<std::unique_ptr<DeviceState>, kMaxDevices>;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& state = states->at(static_cast<std::size_t>(index));
  if (!state) {
    auto made = std::make_unique<DeviceState>();
    check(cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cudaGetDeviceProperties(&made->properties, index), "cudaGetDeviceProperties");
    state = std::move(made);
  }
  return *state;
}

}  // namespace

bool synchronous() {
  static const bool wanted = [] {
    const char* value = std::getenv("LIMBECK_SYNC");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return wanted;
}

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // errors that are not fatal must not turn up again at the next call
  const char* hint =
      synchronous() ? "" : "; kernels run asynchronously: with LIMBECK_SYNC=1 the op named here is the one that failed";
  fail(current_op(), "{} on cuda:{}: {} ({}){}", call, static_cast<int>(active.index), cudaGetErrorString(status),
       cudaGetErrorName(status), hint);
}

Device current_device() noexcept { return active; }
const char* current_op() noexcept { return active_op; }
cudaStream_t stream() { return state_of(active.index).stream; }
bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream(), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}
const cudaDeviceProp& properties() { return state_of(active.index).properties; }

void check_launch() {
  check(cudaGetLastError(), "kernel launch");
  if (synchronous()) check(cudaStreamSynchronize(stream()), "kernel");
}

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::string describe_devices() {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return fmt::format("no GPU: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  }
  std::string text = count == 0 ? "no GPU: the driver reports no device" : "";
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, i), "cudaGetDeviceProperties");
    text += fmt::format("{}cuda:{} {}, {:.0f} GiB, compute capability {}.{}, {} multiprocessors", i == 0 ? "" : "\n", i,
                        p.name, static_cast<double>(p.totalGlobalMem) / (1U << 30U), p.major, p.minor,
                        p.multiProcessorCount);
  }
  return text;
}

void activate(Device device, const char* op) {
  active_op = op;
  if (device == active) return;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    fail<ConfigError>("device", "{} is not available: {}; use --device cpu", device.to_string(),
                      status != cudaSuccess ? cudaGetErrorString(status) : "the driver reports no device");
  }
  if (device.index >= count) {
    fail<ConfigError>("device", "{} is not available: there are {} devices, cuda:0 to cuda:{}", device.to_string(),
                      count, count - 1);
  }
  check(cudaSetDevice(device.index), "cudaSetDevice");
  active = device;
}

void synchronize(Device device) {
  activate(device, "synchronize");
  if (StepGraph* graph = StepGraph::current()) graph->refuse("waits for the device");
  check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
}

Event::Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
Event::~Event() { static_cast<void>(cudaEventDestroy(event_)); }
void Event::record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
void Event::hold_back(cudaStream_t stream) { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }
void Event::wait() { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }

}  // namespace limbeck::cuda
