// What this is: loops whose counter is a compile-time constant, for kernels that keep an array of sums in registers.
#pragma once

#include <cstdint>
#include <utility>

/// Behind the parameters of a lambda: it is always inlined. The compiler leaves large ones as functions otherwise, and what they
/// capture, sums for example, then lies in memory.
#define LIMBECK_INLINE_LAMBDA __attribute__((always_inline))

namespace limbeck::ops {

/// f(0), f(1), ... f(Count - 1), as std::integral_constant.
/// Shapes:   none
template <std::int64_t Count, class F>
[[gnu::always_inline]] inline void for_each_constant(const F& f) {
  [&]<std::int64_t... I>(std::integer_sequence<std::int64_t, I...>) LIMBECK_INLINE_LAMBDA {
    (f(std::integral_constant<std::int64_t, I>{}), ...);
  }
  (std::make_integer_sequence<std::int64_t, Count>{});
}

}  // namespace limbeck::ops
