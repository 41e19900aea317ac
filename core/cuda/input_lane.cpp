#include "core/input_lane.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "core/cuda.h"
#include "core/cuda/allocator.h"
#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/step_graph.h"
#include "core/tensor.h"

namespace limbeck {
namespace {

constexpr std::size_t kPlaces = 4;  // images and labels of two batches

/// Room for one tensor on its way.
struct Place {
  void* pinned = nullptr;
  void* device = nullptr;
  std::size_t bytes = 0;
  cuda::Event arrived;  // in the lane's stream: the pinned memory has been read
  cuda::Event taken;    // in the device's stream: the device memory has been read

  void grow(std::size_t wanted, int index) {
    if (wanted <= bytes) return;
    cuda::Allocator& memory = cuda::allocator(index);
    if (device != nullptr) memory.deallocate(device);  // whoever gets it is queued behind the copy that reads it
    if (pinned != nullptr) cuda::check(cudaFreeHost(pinned), "cudaFreeHost");
    device = pinned = nullptr;
    bytes = 0;
    cuda::check(cudaMallocHost(&pinned, wanted), "cudaMallocHost");
    device = memory.allocate(wanted);
    bytes = wanted;
    taken.record();  // the memory may still be in use by kernels of its owner before
  }
};

struct Lane {
  cudaStream_t stream = nullptr;
  std::array<Place, kPlaces> places;
  std::size_t turn = 0;
  Lane() { cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
};

std::mutex mutex;

Lane& lane_of(int index) {  // never destroyed, as the other states of a device
  static auto* lanes = new std::map<int, std::unique_ptr<Lane>>;
  auto& lane = (*lanes)[index];
  if (!lane) lane = std::make_unique<Lane>();
  return *lane;
}

/// One core copies slower than the bus.
void copy_bytes(char* to, const char* from, std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 20U;
  parallel_for(static_cast<std::int64_t>((bytes + kPiece - 1) / kPiece), 1, [&](std::int64_t begin, std::int64_t end) {
    const std::size_t first = static_cast<std::size_t>(begin) * kPiece;
    std::memcpy(to + first, from + first, std::min(bytes, static_cast<std::size_t>(end) * kPiece) - first);
  });
}

}  // namespace

void send_input(const Tensor& source, const Tensor& destination) {
  LIMBECK_CHECK(source.device().is_cpu() && destination.device().is_cuda() && source.shape() == destination.shape() &&
                    source.dtype() == destination.dtype() && source.is_dense() && destination.is_dense(),
                "input", "got {} for {}, expected a dense tensor of the CPU for its like on a GPU", source.describe(),
                destination.describe());
  const std::size_t bytes = static_cast<std::size_t>(source.numel()) * size_of(source.dtype());
  if (bytes == 0) return;
  const Device device = destination.device();
  cuda::activate(device, "input");
  if (StepGraph* graph = StepGraph::current()) graph->refuse("sends input");
  const std::lock_guard lock(mutex);
  Lane& lane = lane_of(device.index);
  Place& place = lane.places.at(lane.turn++ % kPlaces);
  place.arrived.wait();
  place.grow(bytes, device.index);
  copy_bytes(static_cast<char*>(place.pinned), static_cast<const char*>(source.raw_data()), bytes);
  place.taken.hold_back(lane.stream);
  cuda::check(cudaMemcpyAsync(place.device, place.pinned, bytes, cudaMemcpyHostToDevice, lane.stream),
              "cudaMemcpyAsync");
  place.arrived.record(lane.stream);
  place.arrived.hold_back(cuda::stream());
  cuda::check(cudaMemcpyAsync(destination.raw_data(), place.device, bytes, cudaMemcpyDeviceToDevice, cuda::stream()),
              "cudaMemcpyAsync");
  place.taken.record();
  destination.bump_version();
}

}  // namespace limbeck
