// What this is: the kernel table of an op. One explicit constexpr table per op and direction, so that a search
//   for the op's name finds every implementation.
//
//     inline constexpr KernelTable<ReluFn> kRelu{"relu", relu_ref, relu_cpu, relu_cuda};
//     ...
//     kRelu(x.device(), x.dtype(), x.view(), y.view());
//
// Rules: f64 always runs the reference; a missing kernel of a device is an error that names the op, never a silent
//   copy to another device; tensors on `meta` run nothing.
#pragma once

#include "core/cuda.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"

namespace limbeck {

/// While alive, CPU ops on this thread run their reference kernels even where a fast one exists.
/// The tests compare fast kernels with it; a reader can step through the plain loops.
class ReferenceGuard {
 public:
  ReferenceGuard() noexcept : previous_(active_) { active_ = true; }
  ReferenceGuard(const ReferenceGuard&) = delete;
  ReferenceGuard& operator=(const ReferenceGuard&) = delete;
  ~ReferenceGuard() { active_ = previous_; }
  [[nodiscard]] static bool active() noexcept { return active_; }

 private:
  static inline thread_local bool active_ = false;
  bool previous_;
};

/// True when the CPU call must take the reference kernel.
[[nodiscard]] inline bool use_reference(DType dtype) noexcept {
  return dtype == DType::kF64 || ReferenceGuard::active();
}

template <class Fn>
struct KernelTable;

/// `ref`: naive loops, f32 and f64. `cpu`: fast, f32 and bf16 (may be null: the reference serves f32).
/// `cuda`: f32 and bf16. A build without CUDA has throwing stand-ins (ops/no_cuda.cpp); null: there is none yet.
template <class... Args>
struct KernelTable<void(Args...)> {
  using Fn = void (*)(Args...);
  const char* name;
  Fn ref;
  Fn cpu;
  Fn cuda;

  void operator()(Device device, DType dtype, Args... args) const {
    switch (device.type) {
      case DeviceType::kMeta: return;
      case DeviceType::kCpu:
        if (use_reference(dtype) || cpu == nullptr) {
          ref(args...);
        } else {
          cpu(args...);
        }
        return;
      case DeviceType::kCuda:
        if (cuda == nullptr) fail(name, "no CUDA kernel for {} yet; use --device cpu", name_of(dtype));
        limbeck::cuda::activate(device, name);
        cuda(args...);
        return;
    }
  }
};

}  // namespace limbeck
