// What this is: the reference loops in place of the kernels that call cuDNN and cuBLASLt, which cannot be emulated. They
// let whole networks run on the emulated device; they say nothing about those libraries.
#include "ops/conv2d_kernels.h"
#include "ops/matmul_kernels.h"
#include "tests/cuda_emulation/emulator.h"

namespace limbeck::ops {
namespace {

/// A copy of the view's numbers as f32, row by row in the view's own order of memory.
struct Wide {
  Tensor tensor;
  explicit Wide(const TensorView& v) {
    if (!v.defined()) return;
    tensor = Tensor::empty(v.shape, DType::kF32);
    copy_view(v, tensor.view());
  }
  [[nodiscard]] TensorView view() const { return tensor.view(); }
};

/// Runs `reference` on f32 tensors and stores the result in its type.
template <class Reference>
void run(const TensorView& result, const Reference& reference) {
  const Tensor wide = Tensor::empty(result.shape, DType::kF32);
  reference(wide.view());
  copy_view(wide.view(), result);
}

/// Weights as the real kernel sees them: rounded to the type of the maps.
Tensor rounded(const TensorView& w, DType dtype) {
  const Tensor low = Tensor::empty(w.shape, dtype);
  copy_view(w, low.view());
  return low.copy_as(DType::kF32);
}

}  // namespace

void conv2d_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                         const TensorView& y) {
  const emulation::DeviceAccess access;
  run(y, [&](const TensorView& out) {
    conv2d_forward_ref(Wide(x).view(), rounded(w, x.dtype).view(), Wide(bias).view(), options, out);
  });
}

void conv2d_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                               const Conv2dOptions& options, const TensorView& gx) {
  const emulation::DeviceAccess access;
  run(gx, [&](const TensorView& out) {
    conv2d_backward_data_ref(Wide(gy).view(), rounded(w, gy.dtype).view(), Wide(bias).view(), options, out);
  });
}

void conv2d_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                  const TensorView& gw) {
  const emulation::DeviceAccess access;
  run(gw, [&](const TensorView& out) { conv2d_backward_weights_ref(Wide(x).view(), Wide(gy).view(), options, out); });
}

void matmul_cuda(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c) {
  const emulation::DeviceAccess access;
  run(c, [&](const TensorView& out) { matmul_ref(Wide(a).view(), Wide(b).view(), Wide(bias).view(), out); });
}

}  // namespace limbeck::ops
