// What this is: the CPU in place of the kernels that call cuDNN (its fast kernels) and cuBLASLt (reference loops), which cannot be emulated. They
// let whole networks run on the emulated device; they say nothing about those libraries. And a profiler.
#include "core/cuda/runtime.h"
#include "core/profile.h"
#include "ops/conv2d_kernels.h"
#include "ops/device_conv2d.h"
#include "ops/matmul_kernels.h"
#include "tests/cuda_emulation/emulator.h"

namespace limbeck {

ProfileRange::ProfileRange(const char* name) noexcept { emulation::ranges().push_back(std::string("> ") + name); }
ProfileRange::~ProfileRange() { emulation::ranges().emplace_back("<"); }

namespace emulation {

std::vector<std::string>& ranges() {
  static thread_local std::vector<std::string> all;
  if (all.size() > 100000) all.clear();  // nobody looks
  return all;
}

}  // namespace emulation
}  // namespace limbeck

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

/// Runs a kernel of the CPU on f32 tensors and stores the result in its type.
template <class Kernel>
void run(const TensorView& result, const Kernel& kernel) {
  const Tensor wide = Tensor::empty(result.shape, DType::kF32);
  kernel(wide.view());
  copy_view(wide.view(), result);
}

/// These kernels as work of the stream: like the kernels of those libraries they can wait, and be captured.
template <class Work>
void on_stream(const Work& work) {
  cuda::check(emulation::enqueue(cuda::stream(),
                                 [work] {
                                   const emulation::DeviceAccess access;
                                   work();
                                 }),
              "stand-in");
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
  on_stream([=] {
    run(y, [&](const TensorView& out) {
      conv2d_forward_cpu(Wide(x).view(), rounded(w, x.dtype).view(), Wide(bias).view(), options, out);
    });
  });
}

void device_conv2d_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                        Activation act, const Conv2dOptions& options, const TensorView& y) {
  on_stream([=] {
    run(y, [&](const TensorView& out) {
      conv2d_forward_cpu(Wide(x).view(), Wide(w).view(), Wide(bias).view(), options, out);
      const Wide add(residual);
      for (std::int64_t i = 0; i < out.numel(); ++i) {
        float& value = out.ptr<float>()[i];
        value = activate(act, value + (residual.defined() ? add.tensor.data<float>()[i] : 0.0F));
      }
    });
  });
}

void conv2d_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                               const Conv2dOptions& options, const TensorView& gx) {
  on_stream([=] {
    run(gx, [&](const TensorView& out) {
      conv2d_backward_data_cpu(Wide(gy).view(), rounded(w, gy.dtype).view(), Wide(bias).view(), options, out);
    });
  });
}

void conv2d_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                  const TensorView& gw) {
  on_stream([=] {
    run(gw, [&](const TensorView& out) { conv2d_backward_weights_cpu(Wide(x).view(), Wide(gy).view(), options, out); });
  });
}

void matmul_cuda(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c) {
  on_stream([=] {
    run(c, [&](const TensorView& out) { matmul_ref(Wide(a).view(), Wide(b).view(), Wide(bias).view(), out); });
  });
}

}  // namespace limbeck::ops
