// What this is: the part of CUDA that limbeck's kernels and core/cuda use, as plain C++ on the CPU. With this folder in
//   front of the include path a .cu file compiles with any C++ compiler, and every machine can test it.
// How: a kernel is a function; a launch runs its blocks one after the other, and the threads of a block as fibers that
//   switch at __syncthreads() and at shuffles (emulator.cpp). "Device memory" is ordinary memory that can only be touched
//   while a kernel or a copy runs (runtime.cpp): the host cannot reach it by mistake.
// What it finds: wrong results, divergent barriers, shuffles with missing lanes, accesses behind the end of an allocation
//   (where the caching allocator is told to hand out each request separately), missing barriers (threads and blocks can
//   run in the other order).
// What it cannot find: speed, memory ordering between warps, what cuDNN and cuBLASLt do.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

// --- vectors --------------------------------------------------------------------------------------------------------
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1) : x(x_in), y(y_in), z(z_in) {}
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// --- inside kernels -------------------------------------------------------------------------------------------------
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace limbeck::emulation {

/// Waits for all threads of the block.
void barrier(const std::source_location& where);
/// Waits for the lanes of the warp in `mask`, all of which bring 8 bytes; returns what all 32 lanes brought.
const std::uint64_t* exchange(unsigned mask, std::uint64_t value, const std::source_location& where);

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const std::source_location& where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  const std::uint64_t* words = exchange(mask, word, where);
  std::memcpy(&value, &words[source % 32], sizeof(T));
  return value;
}

}  // namespace limbeck::emulation

inline void __syncthreads(const std::source_location& where = std::source_location::current()) {
  limbeck::emulation::barrier(where);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU,
                       const std::source_location& where = std::source_location::current()) {
  limbeck::emulation::exchange(mask, 0, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, const std::source_location& where = std::source_location::current()) {
  return limbeck::emulation::shuffle(mask, v, threadIdx.x % 32 ^ static_cast<unsigned>(lanes), where);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, const std::source_location& where = std::source_location::current()) {
  return limbeck::emulation::shuffle(mask, v, static_cast<unsigned>(source), where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta,
                   const std::source_location& where = std::source_location::current()) {
  const unsigned lane = threadIdx.x % 32;
  return limbeck::emulation::shuffle(mask, v, lane + delta < 32 ? lane + delta : lane, where);
}

/// Blocks run one after the other.
inline void __threadfence() {}
/// Threads change at barriers and shuffles only.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return std::exchange(*p, static_cast<T>(*p + v));
}

inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32U);
}

// --- the run-time library -------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorLaunchFailure = 719,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureUnmatched = 903,
  cudaErrorStreamCaptureImplicit = 906,
  cudaErrorCapturedEvent = 907
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
using cudaStream_t = struct EmulatedStream*;
using cudaEvent_t = struct EmulatedEvent*;
using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraphExec*;
using cudaGraphNode_t = struct EmulatedGraphNode*;
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream = nullptr;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t status);
const char* cudaGetErrorName(cudaError_t status);
cudaError_t cudaMalloc(void** p, std::size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, std::size_t bytes);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
/// By the clock of the host: of the moments at which the two were recorded, which is when their streams came to them unless work
/// is deferred.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

namespace limbeck::emulation {

/// Gives a piece of work to a stream: it runs now, or later (set_deferred), or is recorded if the stream is captured.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

using Entry = void (*)(void* context);
/// Runs entry(context) once per thread of the grid. Throws limbeck::Error for the mistakes named above.
void run_grid(const cudaLaunchConfig_t& config, Entry entry, void* context);
/// Throws unless `p` is null or points into device memory.
void check_argument(const void* p);
/// Remembers that a kernel has been launched; see launches() in emulator.h.
void count_launch(const void* kernel);

template <class T>
void check_argument_of(const T& value) {
  if constexpr (std::is_pointer_v<T>) check_argument(value);
}

}  // namespace limbeck::emulation

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> values;
    cudaLaunchConfig_t config;

    void check() const {
      std::apply([](const auto&... value) { (limbeck::emulation::check_argument_of(value), ...); }, values);
    }
    void operator()() {
      check();  // once more: the memory may be gone by the time a recorded launch runs
      limbeck::emulation::run_grid(
          config,
          [](void* context) { std::apply(static_cast<Call*>(context)->kernel, static_cast<Call*>(context)->values); },
          this);
    }
  };
  Call call{kernel, std::tuple<P...>(static_cast<P>(std::forward<A>(args))...), *config};
  call.check();
  limbeck::emulation::count_launch(reinterpret_cast<const void*>(kernel));
  return limbeck::emulation::enqueue(config->stream, std::move(call));
}
