// What this is: a loop whose iterations the threads take one by one, for tasks of unequal or unpredictable length.
// Why: on a shared machine one thread is often held up. With a fixed split all others wait for it; here it only takes
//   fewer tasks. Results do not depend on who does what, because tasks write disjoint memory.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/parallel.h"

namespace limbeck::ops {

/// Calls body(state, task) for every task in [0, count); `make_state()` runs once per thread, e.g. to allocate buffers.
/// Shapes:   none
template <class MakeState, class Body>
void parallel_tasks_with(std::int64_t count, const MakeState& make_state, const Body& body) {
  std::atomic<std::int64_t> next{0};
  const std::int64_t threads = std::min<std::int64_t>(count, max_threads());
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t thread = begin; thread < end; ++thread) {
      auto state = make_state();
      for (std::int64_t task = next++; task < count; task = next++) body(state, task);
    }
  });
}

/// Calls body(task) for every task in [0, count).
/// Shapes:   none
template <class Body>
void parallel_tasks(std::int64_t count, const Body& body) {
  parallel_tasks_with(
      count, [] { return 0; }, [&](int, std::int64_t task) { body(task); });
}

}  // namespace limbeck::ops
