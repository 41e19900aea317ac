// What this is: copies between host and device by way of pinned memory. The driver can only read pinned pages on its
// own; copied from ordinary ones, the bytes would be staged by the driver while the program waits. Two buffers take
// turns: one is filled while the other is on its way.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "core/cuda.h"
#include "core/cuda/runtime.h"
#include "core/step_graph.h"

namespace limbeck::cuda {
namespace {

constexpr std::size_t kStaging = std::size_t{4} << 20U;

/// One of the two buffers of a device.
struct Staging {
  void* data = nullptr;
  Event done;  // the last transfer that used it
  Staging() { check(cudaMallocHost(&data, kStaging), "cudaMallocHost"); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() { static_cast<void>(cudaFreeHost(data)); }
};

struct Lane {
  std::array<Staging, 2> buffers;
  std::size_t turn = 0;
  Staging& next() { return buffers.at(turn++ % 2); }
};

std::mutex mutex;

Lane& lane_of(Device device) {
  static auto* lanes = new std::map<int, std::unique_ptr<Lane>>;
  auto& lane = (*lanes)[device.index];
  if (!lane) lane = std::make_unique<Lane>();
  return *lane;
}

/// A recorded copy would bring the bytes of the recording, whatever lies there in a later step.
void refuse_in_graph(fmt::format_string<std::size_t&> what, std::size_t bytes) {
  if (StepGraph* graph = StepGraph::current()) graph->refuse(fmt::format(what, bytes));
}

}  // namespace

void copy_to_device(Device device, void* to, const void* from, std::size_t bytes) {
  refuse_in_graph("copies {} bytes to the device", bytes);
  activate(device, "copy to the device");
  const std::lock_guard lock(mutex);
  Lane& lane = lane_of(device);
  for (std::size_t at = 0; at < bytes; at += kStaging) {
    const std::size_t part = std::min(kStaging, bytes - at);
    Staging& buffer = lane.next();
    buffer.done.wait();
    std::memcpy(buffer.data, static_cast<const char*>(from) + at, part);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, buffer.data, part, cudaMemcpyHostToDevice, stream()),
          "cudaMemcpyAsync");
    buffer.done.record();
  }
}

void copy_to_host(Device device, void* to, const void* from, std::size_t bytes) {
  refuse_in_graph("copies {} bytes to the host", bytes);
  activate(device, "copy to the host");
  const std::lock_guard lock(mutex);
  Lane& lane = lane_of(device);
  const auto start = [&](std::size_t at) -> Staging& {
    Staging& buffer = lane.next();
    buffer.done.wait();
    check(cudaMemcpyAsync(buffer.data, static_cast<const char*>(from) + at, std::min(kStaging, bytes - at),
                          cudaMemcpyDeviceToHost, stream()),
          "cudaMemcpyAsync");
    buffer.done.record();
    return buffer;
  };
  Staging* arriving = bytes > 0 ? &start(0) : nullptr;
  for (std::size_t at = 0; at < bytes; at += kStaging) {
    Staging* following = at + kStaging < bytes ? &start(at + kStaging) : nullptr;
    arriving->done.wait();
    std::memcpy(static_cast<char*>(to) + at, arriving->data, std::min(kStaging, bytes - at));
    arriving = following;
  }
}

}  // namespace limbeck::cuda
