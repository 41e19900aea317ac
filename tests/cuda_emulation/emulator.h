// What this is: what tests can set and ask of the emulated device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace limbeck::emulation {

/// Memory of the device; a request beyond it fails as on a real one.
void set_memory_limit(std::size_t bytes);
/// Number of devices that cudaGetDeviceCount reports; below 0: no driver.
void set_device_count(int count);
/// Runs threads and blocks from the last to the first. A kernel with its barriers in place gives the same results.
void set_reverse_order(bool reverse);
/// Lets streams do their work only when somebody waits for it, the last moment at which a real device may do it: a host
/// buffer that is written again too early then gives other numbers. Turned off, everything waiting is done.
void set_deferred(bool deferred);
/// How often this thread has launched each kernel, by the kernel's address. What a graph repeats counts once.
[[nodiscard]] std::map<const void*, std::size_t>& launches();
/// What a profiler would see of this thread: "> NAME" where a range begins, "<" where the latest ends.
[[nodiscard]] std::vector<std::string>& ranges();

/// Lets code of the host (the stand-ins for cuDNN and cuBLASLt) read and write device memory while it lives.
class DeviceAccess {
 public:
  DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
  ~DeviceAccess();
};

}  // namespace limbeck::emulation
