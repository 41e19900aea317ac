// What this is: how long work of a GPU takes, between two events of its stream, for the programs beside it. Implemented by
//   device_timer.cpp; a build without CUDA has no_device_timer.cpp in its place.
#pragma once

#include <functional>

namespace limbeck::bench {

/// Milliseconds per run of `runs` runs that are given to the stream of the current device one behind the other, without waiting
/// in between: the host stays ahead, so what it needs to launch them is not seen unless it is the slower of the two.
[[nodiscard]] double device_ms(int runs, const std::function<void()>& work);

/// Median of seven such measurements of about 10 ms each, after runs that do not count.
[[nodiscard]] double median_device_ms(const std::function<void()>& work);

/// Milliseconds of a copy of `bytes` inside the memory of the current device by CUDA's own function, measured likewise.
[[nodiscard]] double median_copy_ms(void* to, const void* from, std::size_t bytes);

}  // namespace limbeck::bench
