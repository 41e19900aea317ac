// What this is: the place where somebody can watch the ops that run: name, tensors and options of every call.
// What it is not: the tape (core/autograd.h), which keeps what derivatives need and sees only differentiable calls.
//   An observer sees inference too, which is how a network becomes a graph (nn/graph.h).
// Ops that never appear in a network that is exported (losses, reductions, slices) are not observed; a graph that needs
//   one notices, because the tensor it reads comes from nowhere.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <variant>

#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/pad.h"
#include "ops/pool2d.h"

namespace limbeck::ops {

/// Options of an observed call, by kind of op.
/// Shapes:   none
struct BatchNormCall {
  double eps = 0;
  Activation act = Activation::kNone;
  bool training = false;
};
struct ResizeCall {
  bool align_corners = false;  ///< bilinear only
};
struct ScalarCall {
  std::array<double, 2> values{};  ///< slope of leaky_relu; value of add_scalar; limits of clamp
};
struct DimCall {
  std::int64_t dim = 0;
};
struct PadCall {
  Pad2d pad;
  double value = 0;
};
using CallOptions =
    std::variant<std::monostate, Conv2dOptions, BatchNormCall, Pool2dOptions, ResizeCall, ScalarCall, DimCall, PadCall>;

/// One call of an op. Optional inputs that were not given are undefined tensors.
/// Shapes:   those of the op
struct OpCall {
  const char* op;
  std::span<const Tensor* const> inputs;
  const Tensor& output;
  CallOptions options;
};

/// While an object of a subclass is alive, it is told of every observed op that ends on this thread. The innermost one is told.
/// Shapes:   none
class OpObserver {
 public:
  OpObserver() noexcept : previous_(active_) { active_ = this; }
  OpObserver(const OpObserver&) = delete;
  OpObserver& operator=(const OpObserver&) = delete;
  virtual ~OpObserver() { active_ = previous_; }
  virtual void called(const OpCall& call) = 0;
  [[nodiscard]] static OpObserver* active() noexcept { return active_; }

 private:
  static inline thread_local OpObserver* active_ = nullptr;
  OpObserver* previous_;
};

/// The line that an observed op ends with: `observe("relu", {&x}, y);`
/// Shapes:   any
inline void observe(const char* op, std::span<const Tensor* const> inputs, const Tensor& output,
                    const CallOptions& options = {}) {
  if (OpObserver* observer = OpObserver::active()) [[unlikely]]
    observer->called({op, inputs, output, options});
}
inline void observe(const char* op, std::initializer_list<const Tensor*> inputs, const Tensor& output,
                    const CallOptions& options = {}) {
  observe(op, std::span<const Tensor* const>(inputs.begin(), inputs.size()), output, options);
}

}  // namespace limbeck::ops
