// What this is: CUDA's run-time library on ordinary memory. An allocation ends at the end of a page and an inaccessible
// page follows it; all of it is inaccessible while no kernel and no copy runs. A stream is a list of work that is done at
// once, when somebody waits for it (set_deferred), or, while it is captured, by every launch of the graph that it becomes.
#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "core/error.h"
#include "tests/cuda_emulation/emulator.h"

struct EmulatedGraph {
  std::vector<std::function<void()>> work;
};
struct EmulatedGraphExec {
  std::shared_ptr<const std::vector<std::function<void()>>> work;  // launches that wait may outlive the graph
};
struct EmulatedStream {
  std::deque<std::function<void()>> waiting;
  std::uint64_t given = 0, done = 0;       // pieces of work so far
  std::unique_ptr<EmulatedGraph> capture;  // set while it is captured
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id owner;  // of the capture
  bool invalid = false;   // something that a graph cannot hold has been asked for
};
struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  std::uint64_t place = 0;
  bool captured = false;  // recorded last while the stream was captured
  std::chrono::steady_clock::time_point when = {};
};

namespace limbeck::emulation {
namespace {

struct Allocation {
  char* pages = nullptr;
  std::size_t mapped = 0;  // without the page behind
  std::size_t bytes = 0;
};

std::map<const char*, Allocation>& allocations() {  // by first byte
  static std::map<const char*, Allocation> all;
  return all;
}
std::size_t in_use = 0;
std::size_t limit = std::size_t{4} << 30U;
int devices = 1;
int access_depth = 0;
bool deferred = false;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

std::vector<std::unique_ptr<EmulatedStream>>& streams() {
  static auto* all = new std::vector<std::unique_ptr<EmulatedStream>>;
  return *all;
}
std::map<const char*, std::size_t>& pinned() {
  static std::map<const char*, std::size_t> all;
  return all;
}

/// Does the work of the stream up to the piece number `end`.
void drain(EmulatedStream& stream, std::uint64_t end) {
  while (stream.done < end) {
    const auto work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    ++stream.done;
    work();
  }
}
void drain_all() {
  for (auto& stream : streams()) drain(*stream, stream->given);
}

EmulatedStream* captured_here() {
  for (auto& stream : streams()) {
    if (stream->capture != nullptr && stream->owner == std::this_thread::get_id()) return stream.get();
  }
  return nullptr;
}

/// Calls that CUDA forbids to a thread that captures, unless it has asked for the relaxed mode.
bool forbidden() {
  const EmulatedStream* stream = captured_here();
  return stream != nullptr && stream->mode != cudaStreamCaptureModeRelaxed &&
         thread_mode != cudaStreamCaptureModeRelaxed;
}

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void protect(int protection) {
  for (const auto& [p, a] : allocations()) mprotect(a.pages, a.mapped, protection);
}

/// True if the bytes lie inside one allocation.
bool on_device(const void* p, std::size_t bytes) {
  const auto* first = static_cast<const char*>(p);
  auto next = allocations().upper_bound(first);
  if (next == allocations().begin()) return false;
  const auto& [begin, a] = *std::prev(next);
  return first + bytes <= begin + a.bytes;
}

/// True if the bytes lie inside one allocation of pinned memory.
bool is_pinned(const void* p, std::size_t bytes) {
  const auto* first = static_cast<const char*>(p);
  auto next = pinned().upper_bound(first);
  if (next == pinned().begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return first + bytes <= begin + size;
}

}  // namespace

void set_deferred(bool wanted) {
  deferred = wanted;
  if (!wanted) drain_all();
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream == nullptr) {  // the old default stream waits for all others
    if (captured_here() != nullptr) return cudaErrorStreamCaptureImplicit;
    drain_all();
    work();
    return cudaSuccess;
  }
  if (stream->capture != nullptr) {
    if (stream->invalid) return cudaErrorStreamCaptureInvalidated;
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream->waiting.push_back(std::move(work));
  ++stream->given;
  if (!deferred) drain(*stream, stream->given);
  return cudaSuccess;
}

std::map<const void*, std::size_t>& launches() {
  static thread_local std::map<const void*, std::size_t> counts;
  return counts;
}
void count_launch(const void* kernel) { ++launches()[kernel]; }

void set_memory_limit(std::size_t bytes) { limit = bytes; }
void set_device_count(int count) { devices = count; }

DeviceAccess::DeviceAccess() {
  if (access_depth++ == 0) protect(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  if (--access_depth == 0) protect(PROT_NONE);
}

void check_argument(const void* p) {
  LIMBECK_CHECK(p == nullptr || on_device(p, 0), "emulated kernel", "an argument points to memory of the host");
}

int device_total() { return devices; }

}  // namespace limbeck::emulation

using namespace limbeck::emulation;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_total() > 0 ? device_total() : 0;
  if (device_total() < 0) return cudaErrorInsufficientDriver;
  return device_total() == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device < device_total() ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::strcpy(p->name, "emulated device");
  p->totalGlobalMem = limit;
  p->major = 9;
  p->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: return "invalid argument";
  }
}
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
    default: return "cudaErrorInvalidValue";
  }
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (forbidden()) return cudaErrorStreamCaptureUnsupported;
  if (in_use + bytes > limit) return cudaErrorMemoryAllocation;
  const std::size_t page = page_size();
  const std::size_t mapped = (bytes + page - 1) / page * page;
  void* pages = mmap(nullptr, mapped + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
  auto* first = static_cast<char*>(pages) + mapped - (bytes + 15) / 16 * 16;
  if (access_depth > 0) mprotect(pages, mapped, PROT_READ | PROT_WRITE);
  allocations()[first] = {static_cast<char*>(pages), mapped, bytes};
  in_use += bytes;
  *p = first;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (forbidden()) return cudaErrorStreamCaptureUnsupported;
  const auto found = allocations().find(static_cast<char*>(p));
  if (found == allocations().end()) return cudaErrorInvalidValue;
  drain_all();
  in_use -= found->second.bytes;
  munmap(found->second.pages, found->second.mapped + page_size());
  allocations().erase(found);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  if (forbidden()) return cudaErrorStreamCaptureUnsupported;
  *p = std::malloc(bytes);
  if (*p != nullptr) pinned()[static_cast<char*>(*p)] = bytes;
  return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  if (forbidden()) return cudaErrorStreamCaptureUnsupported;
  drain_all();
  pinned().erase(static_cast<char*>(p));
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = limit;
  *free = limit - in_use;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (bytes > 0 && (on_device(to, bytes) != to_device || on_device(from, bytes) != from_device))
    return cudaErrorInvalidValue;
  const void* host = to_device && from_device ? nullptr : (to_device ? from : to);
  if (host != nullptr && !is_pinned(host, bytes)) {  // the driver would wait for the copy
    if (captured_here() != nullptr) return cudaErrorStreamCaptureUnsupported;
    drain_all();
  }
  return enqueue(stream, [=] {
    const DeviceAccess access;
    std::memcpy(to, from, bytes);
  });
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes > 0 && !on_device(p, bytes)) return cudaErrorInvalidValue;
  return enqueue(stream, [=] {
    const DeviceAccess access;
    std::memset(p, value, bytes);
  });
}

// --- streams and events ---------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = streams().emplace_back(std::make_unique<EmulatedStream>()).get();
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream == nullptr) {
    drain_all();
    return cudaSuccess;
  }
  if (stream->capture != nullptr) {
    stream->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  drain(*stream, stream->given);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {stream, stream->given, stream->capture != nullptr, std::chrono::steady_clock::now()};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->captured) return cudaErrorCapturedEvent;
  // A real device may allow this one. Here every wait inside a capture is an error: it waits for nothing that the
  // capture has in it.
  if (forbidden()) return cudaErrorStreamCaptureUnsupported;
  if (event->stream != nullptr) drain(*event->stream, event->place);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->captured || stream->capture != nullptr)
    return cudaErrorStreamCaptureUnsupported;  // one stream is captured
  if (event->stream == nullptr) return cudaSuccess;
  return enqueue(stream, [other = event->stream, place = event->place] { drain(*other, place); });
}

// --- graphs ---------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (stream == nullptr || stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  stream->capture = std::make_unique<EmulatedGraph>();
  stream->mode = mode;
  stream->owner = std::this_thread::get_id();
  stream->invalid = false;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream->capture == nullptr) return cudaErrorStreamCaptureUnmatched;
  const auto made = std::move(stream->capture);
  if (stream->invalid) return cudaErrorStreamCaptureInvalidated;
  *graph = new EmulatedGraph(*made);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  if (stream == nullptr || stream->capture == nullptr) return cudaSuccess;
  *status = stream->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraphExec{std::make_shared<const std::vector<std::function<void()>>>(graph->work)};
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (captured_here() != nullptr) return cudaErrorStreamCaptureUnsupported;
  return enqueue(stream, [work = exec->work] {
    const DeviceAccess access;
    // Each with arguments of its own: a kernel may write to the struct that it was given.
    for (auto piece : *work) piece();
  });
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
