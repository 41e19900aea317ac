// What this is: a convolution with bias, residual and activation in one kernel, by cuDNN's graph API: the operations are
//   described as a small graph, cuDNN proposes engines for it, the fastest of the first that suit becomes a plan.
// What it is not: the layers of a training step (ops/conv2d_cudnn.cpp), whose calls cuDNN fuses with nothing.
// Read next: ops/device_conv2d.h.
#pragma once

#include <cudnn_graph.h>

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace limbeck::cuda {

/// y = clip(conv(x, w) + residual + bias), all maps dense and channels-last, w as [O][KH][KW][I/G], bias f32.
struct FusedProblem {
  Shape x, w, y;
  DType dtype = DType::kF32;  // of x, w, residual, y
  std::array<std::int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
  bool residual = false;
  bool relu = false;  // negative results become 0
  double most = 0;    // with relu: results above become this; 0: no limit

  /// What makes it another problem than the next.
  [[nodiscard]] std::array<std::int64_t, 17> numbers() const;
};

/// A descriptor of cuDNN's backend; frees itself.
class BackendDescriptor {
 public:
  explicit BackendDescriptor(cudnnBackendDescriptorType_t type);
  BackendDescriptor(BackendDescriptor&& other) noexcept;
  BackendDescriptor& operator=(BackendDescriptor&&) = delete;
  ~BackendDescriptor();

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count, const void* values);
  [[nodiscard]] cudnnStatus_t try_finalize();
  void finalize();
  [[nodiscard]] cudnnBackendDescriptor_t get() const noexcept { return descriptor_; }

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

/// The chosen way for one problem.
class FusedPlan {
 public:
  /// Null if cuDNN has no engine for the problem that repeats bit for bit and, in f32, does not round its factors. How one
  /// is chosen: Note [ranked or timed] in ops/conv2d_cudnn.cpp.
  [[nodiscard]] static std::unique_ptr<FusedPlan> make(const FusedProblem& problem);

  [[nodiscard]] std::size_t workspace() const noexcept { return workspace_; }
  void run(const void* x, const void* w, const void* bias, const void* residual, void* y, void* workspace) const;

 private:
  /// `graph`: what the operations were described by; all plans of a problem keep it.
  FusedPlan(std::shared_ptr<const std::vector<BackendDescriptor>> graph, BackendDescriptor configuration,
            BackendDescriptor plan, std::size_t workspace, bool residual)
      : graph_(std::move(graph)),
        configuration_(std::move(configuration)),
        plan_(std::move(plan)),
        workspace_(workspace),
        residual_(residual) {}
  [[nodiscard]] float milliseconds(const FusedProblem& problem) const;

  std::shared_ptr<const std::vector<BackendDescriptor>> graph_;
  BackendDescriptor configuration_;
  BackendDescriptor plan_;
  std::size_t workspace_;
  bool residual_;
};

}  // namespace limbeck::cuda
