// What this is: core/cuda.h in a build without CUDA.
#include "core/cuda.h"
#include "core/readback.h"
#include "core/tensor.h"

namespace limbeck::cuda {
namespace {

[[noreturn]] void missing(Device device) {
  fail<ConfigError>("device",
                    "{} is not available: this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use "
                    "--device cpu",
                    device.to_string());
}

}  // namespace

int device_count() noexcept { return 0; }
std::string describe_devices() { return "built without CUDA"; }
void activate(Device device, const char*) { missing(device); }
void synchronize(Device device) { missing(device); }
void* allocate(Device device, std::size_t) { missing(device); }
void deallocate(Device, void*, std::size_t) noexcept {}
AllocatorStats memory_stats(Device device) { missing(device); }
void reset_peak(Device device) { missing(device); }
void trim(Device device) { missing(device); }
void copy_to_device(Device device, void*, const void*, std::size_t) { missing(device); }
void copy_to_host(Device device, void*, const void*, std::size_t) { missing(device); }
void* start_reading(Device device, std::span<const void* const>) { missing(device); }
void finish_reading(void*, std::size_t, double*) {}
void copy_view(Device device, const TensorView&, const TensorView&) { missing(device); }
void fill_view(Device device, double, const TensorView&) { missing(device); }
void add_view(Device device, const TensorView&, const TensorView&) { missing(device); }

}  // namespace limbeck::cuda
