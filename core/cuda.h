// What this is: what the rest of limbeck sees of the GPU. No CUDA header is needed to include it.
// Implemented by core/cuda/ in a build with CUDA and by core/no_cuda.cpp, where every function but the first throws, in
//   a build without; the tests implement CUDA's run-time library on the CPU (tests/cuda_emulation).
//
// Note [one stream]
//   All work of a device goes to one stream, in program order (but for input batches, core/input_lane.h). A block of memory may
//   therefore be handed out again as soon as its owner lets go of it: whoever gets it is queued behind the last kernel that used it.
#pragma once

#include <cstddef>
#include <string>

#include "core/device.h"
#include "core/memory.h"

namespace limbeck {
struct TensorView;
}

namespace limbeck::cuda {

/// Usable devices; 0 in a build without CUDA or on a machine without driver.
[[nodiscard]] int device_count() noexcept;
/// One line per device (name, memory, compute capability), or why there is none.
[[nodiscard]] std::string describe_devices();
/// Makes `device` the one of the following calls on this thread. `op` stands in the message if one of them fails.
/// Throws if there is no such device.
void activate(Device device, const char* op);
/// Waits until the device has done all its work; errors of earlier kernels are reported here at the latest.
void synchronize(Device device);

/// Uninitialised memory, aligned to 512 bytes. Throws Error with the largest live blocks when there is none left.
[[nodiscard]] void* allocate(Device device, std::size_t bytes);
void deallocate(Device device, void* p, std::size_t bytes) noexcept;
[[nodiscard]] AllocatorStats memory_stats(Device device);
void reset_peak(Device device);
/// Returns cached memory to the driver.
void trim(Device device);

/// Returns when `from` may be reused; the copy itself may still be under way.
void copy_to_device(Device device, void* to, const void* from, std::size_t bytes);
/// Returns when the bytes have arrived.
void copy_to_host(Device device, void* to, const void* from, std::size_t bytes);

/// destination = source, converting the element type; equal shapes, any strides, both on `device`.
void copy_view(Device device, const TensorView& source, const TensorView& destination);
/// Every element = value.
void fill_view(Device device, double value, const TensorView& destination);
/// destination += source; equal shapes, any strides, f32, bf16 or f64.
void add_view(Device device, const TensorView& source, const TensorView& destination);

}  // namespace limbeck::cuda
