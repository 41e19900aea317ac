// What this is: the CUDA run-time library with errors as exceptions: the check that stands around every call, the
//   stream of a device, events.
// What it is not: kernels (core/cuda/kernel.cuh) or memory (core/cuda/allocator.h).
#pragma once

#include <cuda_runtime.h>

#include "core/device.h"

namespace limbeck::cuda {

/// Throws Error with the name of the op that is running, of the call and of the error.
void check(cudaError_t status, const char* call);

/// The device and the op given to the last activate() of this thread.
[[nodiscard]] Device current_device() noexcept;
[[nodiscard]] const char* current_op() noexcept;

/// The stream of the current device; see Note [one stream].
[[nodiscard]] cudaStream_t stream();

/// True while that stream records a graph.
[[nodiscard]] bool capturing();

/// Facts about the current device, read once.
[[nodiscard]] const cudaDeviceProp& properties();

/// True with LIMBECK_SYNC=1 in the environment.
[[nodiscard]] bool synchronous();
/// Called after every launch. If synchronous() it also waits for the kernel, so that a fault is reported by the op that
/// caused it.
void check_launch();

/// A point in the stream.
class Event {
 public:
  Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();
  void record() { record(stream()); }
  void record(cudaStream_t stream);
  /// Work given to `stream` from now on waits for the point; for none that was never recorded.
  void hold_back(cudaStream_t stream);
  /// Waits on the host until the stream has passed the point; returns at once if it was never recorded.
  void wait();

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace limbeck::cuda
