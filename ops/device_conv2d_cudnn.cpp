// The convolution of ops/device_conv2d.h: by a fused plan of cuDNN, chosen once per problem; where there is none, by the
// convolution of the training step and two passes over its result.
#include <algorithm>
#include <array>
#include <memory>
#include <mutex>

#include "core/choices.h"
#include "core/cuda/allocator.h"
#include "core/cuda/cudnn_graph.h"
#include "core/cuda/runtime.h"
#include "core/lru_cache.h"
#include "ops/conv2d_kernels.h"
#include "ops/device_conv2d.h"
#include "ops/elementwise_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

struct Key {
  std::array<std::int64_t, 20> numbers;
};

Key key_of(const FusedProblem& p) {
  Key k{};
  k.numbers[0] = current_device().index;
  k.numbers[1] = choices::ranked() ? 1 : 0;
  const auto numbers = p.numbers();
  std::copy(numbers.begin(), numbers.end(), k.numbers.begin() + 2);
  return k;
}

/// Null where cuDNN has none.
const FusedPlan* plan_for(const FusedProblem& problem) {
  static std::mutex mutex;
  static auto* plans = new LruCache<Key, std::unique_ptr<FusedPlan>>(1024);
  const std::lock_guard lock(mutex);
  return plans->get(key_of(problem), [&] { return FusedPlan::make(problem); }).get();
}

bool aligned(const TensorView& v) { return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0; }

}  // namespace

void device_conv2d_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                        Activation act, const Conv2dOptions& options, const TensorView& y) {
  FusedProblem problem{x.shape, w.shape, y.shape, x.dtype, options.stride, options.padding, options.dilation};
  problem.residual = residual.defined();
  problem.relu = act != Activation::kNone;
  problem.most = act == Activation::kRelu6 ? 6 : 0;
  const bool fits = aligned(x) && aligned(w) && aligned(bias) && aligned(residual) && aligned(y);
  if (const FusedPlan* plan = fits ? plan_for(problem) : nullptr) {
    const Scratch workspace(plan->workspace());
    plan->run(x.data, w.data, bias.data, residual.data, y.data, workspace.as<void>());
    return;
  }
  conv2d_forward_cuda(x, w, bias, options, y);
  if (residual.defined()) add_in_place_cuda(residual, y, 1.0);
  if (act == Activation::kRelu) unary_cuda<Relu>(y, y, {});
  if (act == Activation::kRelu6) unary_cuda<Relu6>(y, y, {});
}

}  // namespace limbeck::ops
