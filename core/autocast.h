// What this is: automatic mixed precision. Inside an AutocastGuard each op casts its inputs by its policy; master weights
//   stay f32. bf16 has the exponent range of f32, so no loss scaling is needed.
// The differentiable cast itself is ops::cast; ops call autocast_* helpers of ops/copy.h in their glue.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace limbeck {

/// What an op does with a floating input while autocast is on:
///   kLow     cast to bf16: convolution, matmul
///   kFull    cast to f32: softmax, losses, norms of features
///   kKeep    leave alone: ReLU, pooling, batch norm (statistics are f32 inside), resize
/// Ops of several inputs that must meet in one type (add, concat) look at all of them: ops::autocast_widest().
enum class CastPolicy : std::uint8_t { kLow, kFull, kKeep };

class AutocastGuard {
 public:
  explicit AutocastGuard(bool enabled = true) noexcept : previous_(enabled_) { enabled_ = enabled; }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;
  ~AutocastGuard() { enabled_ = previous_; }
  [[nodiscard]] static bool enabled() noexcept { return enabled_; }

 private:
  static inline thread_local bool enabled_ = false;
  bool previous_;
};

}  // namespace limbeck
