// The device of the tests of the GPU, and what they do where there is none.
#pragma once

#include <doctest/doctest.h>

#include "core/cuda.h"
#include "core/device.h"

namespace limbeck::test {

inline constexpr Device kGpu{DeviceType::kCuda, 0};

/// True, with a printed reason, if there is no device.
inline bool no_device() {
  if (cuda::device_count() > 0) return false;
  MESSAGE("skipped: ", cuda::describe_devices());
  return true;
}

}  // namespace limbeck::test
