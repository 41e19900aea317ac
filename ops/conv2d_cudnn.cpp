// The dense convolution by cuDNN: channels-last, f32 or bf16 with f32 accumulation; training and inference. How a plan is
// chosen: core/cuda/cudnn_convolution_plan.h.
//
// Weights of the training step are f32. For bf16 maps they are rounded first, and cuDNN returns their gradient rounded to
// bf16 too (it accumulates in f32); it is stored as f32. The bias is rounded like the weights.
#include <cstdint>
#include <memory>

#include "core/cuda.h"
#include "core/cuda/allocator.h"
#include "core/cuda/cudnn_convolution_plan.h"
#include "core/cuda/runtime.h"
#include "ops/conv2d_kernels.h"
#include "ops/device_conv2d.h"
#include "ops/elementwise_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// A view as a plan reads or writes it: dense, of the type that the plan wants, at an address that it can use. The view
/// itself where it is all that, otherwise a copy that lives as long as this object.
class Prepared {
 public:
  /// What the plan writes has no contents yet. An undefined view stays undefined.
  Prepared(const TensorView& view, DType dtype, bool written) : view_(view), dtype_(dtype), written_(written) {
    const bool usable = view.dtype == dtype && reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
    if (!view.defined() || usable) return;
    copy_ = std::make_unique<Scratch>(static_cast<std::size_t>(view.numel()) * size_of(dtype));
    if (!written) copy_view(current_device(), view, copy());
  }
  [[nodiscard]] void* data() const noexcept { return copy_ ? copy_->as<void>() : view_.data; }
  /// Brings what the plan wrote to the view.
  void store() const {
    if (copy_ && written_) copy_view(current_device(), copy(), view_);
  }

 private:
  [[nodiscard]] TensorView copy() const {
    return {copy_->as<void>(), dtype_, view_.shape, default_strides(view_.shape)};
  }

  TensorView view_;
  DType dtype_;
  bool written_;
  std::unique_ptr<Scratch> copy_;
};

/// Three maps, one of which a pass writes, and what a forward pass may add.
struct Maps {
  TensorView x, w, y;
  TensorView bias, residual;
};

ConvolutionProblem problem_of(ConvolutionPass pass, DType dtype, const Maps& m, const Conv2dOptions& options) {
  ConvolutionProblem p{pass, dtype, m.x.shape, m.w.shape, m.y.shape, options.stride, options.padding, options.dilation};
  p.bias = m.bias.defined();
  p.residual = m.residual.defined();
  return p;
}

/// False if cuDNN has no plan.
bool run(const ConvolutionProblem& p, const Maps& m) {
  const auto plan = convolution_plan(p);
  if (plan == nullptr) return false;
  const Prepared x(m.x, p.dtype, p.pass == ConvolutionPass::kData);
  const Prepared w(m.w, p.dtype, p.pass == ConvolutionPass::kWeights);
  const Prepared y(m.y, p.dtype, p.pass == ConvolutionPass::kForward);
  const Prepared bias(m.bias, p.bias_dtype(), false);
  const Prepared residual(m.residual, p.dtype, false);
  const Scratch workspace(plan->workspace());
  plan->run(x.data(), w.data(), y.data(), bias.data(), residual.data(), workspace.as<void>());
  for (const Prepared* map : {&x, &w, &y}) map->store();
  return true;
}

[[noreturn]] void no_plan(const ConvolutionProblem& p, const Conv2dOptions& options) {
  const auto& card = properties();
  const bool too_old = p.dtype == DType::kBF16 && card.major < 8;
  fail(current_op(), "cuDNN offers no repeatable algorithm for x {}, w {}, {} ({}) on {}{}", p.x, p.w,
       options.to_string(), name_of(p.dtype), static_cast<const char*>(card.name),
       too_old ? ", whose compute capability is below 8.0: it has no bf16; use f32" : "");
}

void run_or_throw(const ConvolutionProblem& p, const Maps& m, const Conv2dOptions& options) {
  if (!run(p, m)) no_plan(p, options);
}

/// map[n, c, i, j] += bias[c]
void add_bias(const TensorView& bias, const TensorView& map) {
  const Prepared b(bias, map.dtype, false);
  add_in_place_cuda({b.data(), map.dtype, map.shape, Strides{0, 1, 0, 0}}, map, 1.0);
}

}  // namespace

void conv2d_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                         const TensorView& y) {
  Maps maps{x, w, y, bias, {}};
  if (bias.defined() && run(problem_of(ConvolutionPass::kForward, x.dtype, maps, options), maps)) return;
  maps.bias = {};
  run_or_throw(problem_of(ConvolutionPass::kForward, x.dtype, maps, options), maps, options);
  if (bias.defined()) add_bias(bias, y);
}

void device_conv2d_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                        Activation act, const Conv2dOptions& options, const TensorView& y) {
  const Maps maps{x, w, y, bias, residual};
  ConvolutionProblem p = problem_of(ConvolutionPass::kForward, x.dtype, maps, options);
  p.relu = act != Activation::kNone;
  p.most = act == Activation::kRelu6 ? 6 : 0;
  if (run(p, maps)) return;
  conv2d_forward_cuda(x, w, bias, options, y);
  if (residual.defined()) add_in_place_cuda(residual, y, 1.0);
  if (act == Activation::kRelu) unary_cuda<Relu>(y, y, {});
  if (act == Activation::kRelu6) unary_cuda<Relu6>(y, y, {});
}

void conv2d_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                               const Conv2dOptions& options, const TensorView& gx) {
  const Maps maps{gx, w, gy, {}, {}};
  run_or_throw(problem_of(ConvolutionPass::kData, gy.dtype, maps, options), maps, options);
  if (bias.defined()) add_bias(bias, gx);
}

void conv2d_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                  const TensorView& gw) {
  const Maps maps{x, gw, gy, {}, {}};
  run_or_throw(problem_of(ConvolutionPass::kWeights, x.dtype, maps, options), maps, options);
}

}  // namespace limbeck::ops
