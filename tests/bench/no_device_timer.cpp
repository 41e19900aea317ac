// What this is: what stands in for device_timer.cpp in a build without CUDA.
#include "core/error.h"
#include "tests/bench/device_timer.h"

namespace limbeck::bench {
namespace {

[[noreturn]] void missing() {
  fail<ConfigError>("bench", "this build has no GPU code (configure with -DLIMBECK_CUDA=ON)");
}

}  // namespace

double device_ms(int, const std::function<void()>&) { missing(); }
double median_device_ms(const std::function<void()>&) { missing(); }
double median_copy_ms(void*, const void*, std::size_t) { missing(); }

}  // namespace limbeck::bench
