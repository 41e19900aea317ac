// What this is: the GPU half of core/readback.h: pinned memory that numbers travel to, used again and again.
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda.h"
#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/readback.h"
#include "core/step_graph.h"

namespace limbeck::cuda {
namespace {

constexpr std::size_t kMost = 1024;  // numbers of one reading

struct Ticket {
  Device device;
  float* numbers = nullptr;
  Event done;
  explicit Ticket(Device d) : device(d) {
    void* p = nullptr;
    check(cudaMallocHost(&p, kMost * sizeof(float)), "cudaMallocHost");
    numbers = static_cast<float*>(p);
  }
};

std::mutex mutex;

/// Tickets that nobody holds; never freed, like the other states of a device.
std::vector<Ticket*>& spare() {
  static auto* tickets = new std::vector<Ticket*>;
  return *tickets;
}

Ticket* take(Device device) {
  const std::lock_guard lock(mutex);
  for (auto it = spare().begin(); it != spare().end(); ++it) {
    if ((*it)->device != device) continue;
    Ticket* found = *it;
    spare().erase(it);
    return found;
  }
  return std::make_unique<Ticket>(device).release();
}

void put_back(Ticket* ticket) {
  const std::lock_guard lock(mutex);
  spare().push_back(ticket);
}

}  // namespace

void* start_reading(Device device, std::span<const void* const> numbers) {
  LIMBECK_CHECK(numbers.size() <= kMost, "readback", "{} numbers at once, at most {} are possible", numbers.size(),
                kMost);
  if (StepGraph* graph = StepGraph::current()) graph->refuse("reads numbers back");
  activate(device, "readback");
  std::unique_ptr<Ticket, void (*)(Ticket*)> ticket(take(device), put_back);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    check(cudaMemcpyAsync(ticket->numbers + i, numbers[i], sizeof(float), cudaMemcpyDeviceToHost, stream()),
          "cudaMemcpyAsync");
  }
  ticket->done.record();
  return ticket.release();
}

void finish_reading(void* p, std::size_t count, double* out) {
  const std::unique_ptr<Ticket, void (*)(Ticket*)> ticket(static_cast<Ticket*>(p), put_back);
  if (out == nullptr) return;  // the ticket's next copy is queued behind this one
  ticket->done.wait();
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<double>(ticket->numbers[i]);
}

}  // namespace limbeck::cuda
