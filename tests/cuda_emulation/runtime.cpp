// What this is: CUDA's run-time library on ordinary memory. An allocation ends at the end of a page and an inaccessible
// page follows it; all of it is inaccessible while no kernel and no copy runs.
#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "core/error.h"
#include "tests/cuda_emulation/emulator.h"

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

}  // namespace

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
    default: return "cudaErrorInvalidValue";
  }
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
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
  const auto found = allocations().find(static_cast<char*>(p));
  if (found == allocations().end()) return cudaErrorInvalidValue;
  in_use -= found->second.bytes;
  munmap(found->second.pages, found->second.mapped + page_size());
  allocations().erase(found);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  *p = std::malloc(bytes);
  return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = limit;
  *free = limit - in_use;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (bytes > 0 && (on_device(to, bytes) != to_device || on_device(from, bytes) != from_device))
    return cudaErrorInvalidValue;
  const DeviceAccess access;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t) {
  if (bytes > 0 && !on_device(p, bytes)) return cudaErrorInvalidValue;
  const DeviceAccess access;
  std::memset(p, value, bytes);
  return cudaSuccess;
}

// Everything has happened by the time a call returns: streams and events are empty.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
