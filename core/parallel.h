// What this is: the one way to run a loop on all cores. Uses OpenMP, the pool that oneDNN uses too.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace limbeck {

[[nodiscard]] inline int max_threads() noexcept { return omp_get_max_threads(); }
inline void set_threads(int count) noexcept { omp_set_num_threads(std::max(1, count)); }

/// Calls `body(begin, end)` on disjoint ranges of about equal length that cover [0, count), one per thread, and no more
/// ranges than there are `grain`s in `count`, rounded up. The split depends on the thread count, so `body` must not depend on the split: reductions
/// use reduction_blocks() below. Nested calls run serially. The first exception is rethrown in the caller.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
  if (count <= 0) return;
  const std::int64_t wanted = (count + std::max<std::int64_t>(grain, 1) - 1) / std::max<std::int64_t>(grain, 1);
  const auto threads = static_cast<int>(std::min<std::int64_t>(wanted, max_threads()));
  if (threads <= 1 || omp_in_parallel() != 0) {
    body(std::int64_t{0}, count);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t parts = omp_get_num_threads();
    const std::int64_t part = omp_get_thread_num();
    const std::int64_t begin = count * part / parts;
    const std::int64_t end = count * (part + 1) / parts;
    try {
      if (begin < end) body(begin, end);
    } catch (...) {
#pragma omp critical(limbeck_parallel_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

/// Number of blocks that a repeatable reduction uses: a function of the problem size alone, never of the threads.
/// A kernel writes one partial result per block (parallel_for over blocks) and adds them in block order.
[[nodiscard]] inline std::int64_t reduction_blocks(std::int64_t count, std::int64_t grain, std::int64_t most = 64) {
  return std::clamp<std::int64_t>(count / std::max<std::int64_t>(grain, 1), 1, most);
}

}  // namespace limbeck
