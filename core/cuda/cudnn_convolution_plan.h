// What this is: how cuDNN computes a convolution. Forward pass or a gradient, and around a forward pass bias, residual and
//   activation, are described as a small graph; cuDNN proposes engines for it, and the fastest of the first that suit becomes
//   the plan that is kept.
// What it is not: the ops (ops/conv2d_cudnn.cpp), or depthwise convolutions, which have own kernels.
//
// Note [ranked or timed]
//   The best of cuDNN's ranking are run once and the fastest is taken. Two may be as fast as each other within what a clock
//   sees; then another process may take the other, and end with other bits. What was chosen therefore goes into
//   checkpoints (core/choices.h): a run that is resumed gives the bits of one that was not. Where every run of the same
//   configuration has to, train.deterministic or LIMBECK_CUDNN=ranked leaves the choice to the ranking.
//
// Note [engines that suit]
//   An engine must give the same bits every time, and must not round f32 factors unless LIMBECK_TF32=1 allows it; in f32
//   that leaves few of cuDNN's first proposals, so its fallback proposals are looked at, too. cuDNN's plain loops (strict
//   about NaN) come last, and never with bias or activation: separate passes are faster then. An engine that cuDNN compiles
//   while the plan is made costs a third of a second, so no second one of that kind is tried.
//
// Note [plans without a device]
//   Since 9.8 cuDNN makes plans for a card that is only described by numbers. tests/cuda/test_convolution_plans.cpp asks
//   so what cuDNN offers for every convolution of the networks on cards that are not there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cuda/cudnn.h"
#include "core/cuda/cudnn_descriptor.h"
#include "core/tensor.h"

namespace limbeck::cuda {

enum class ConvolutionPass : std::uint8_t { kForward, kData, kWeights };

/// The maps x and y and the filter w between them, whichever of the three is computed; all dense and channels-last, w stored
/// as [O][KH][KW][I/G], every address a multiple of 16 bytes.
/// Formula:  kForward: y = clip(conv(x, w) + residual + bias); kData: x = dL/dx of y = dL/dy; kWeights: w = dL/dw of x and y
/// Shapes:   x [N,I,H,W]; w [O,I/G,KH,KW]; y, residual [N,O,OH,OW]; bias [O]
struct ConvolutionProblem {
  ConvolutionPass pass = ConvolutionPass::kForward;
  DType dtype = DType::kF32;  // of x, w, y and residual: f32 or bf16
  Shape x, w, y;
  std::array<std::int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
  // Of the forward pass only:
  bool bias = false;
  bool residual = false;
  bool relu = false;  // negative results become 0
  double most = 0;    // with relu: results above become this; 0: no limit

  [[nodiscard]] bool fused() const noexcept { return bias || residual || relu; }
  /// cuDNN's ready-made engines want the bias in the type of the maps; those with a limit are compiled, and add it in f32.
  [[nodiscard]] DType bias_dtype() const noexcept { return most > 0 ? DType::kF32 : dtype; }
  /// What makes it another problem than the next.
  [[nodiscard]] std::array<std::int64_t, 18> numbers() const;
};

/// What plans are made for: the current device, or a card that is only described.
class PlanTarget {
 public:
  [[nodiscard]] static PlanTarget current_device();
  /// `json` has the fields of cuDNN's device properties; see Note [plans without a device].
  /// Throws: Error if cuDNN is older than 9.8 or does not understand the description.
  [[nodiscard]] static PlanTarget described(const std::string& json);

  void enter_graph(BackendDescriptor& graph) const;
  void enter_heuristics(BackendDescriptor& heuristics) const;
  void enter_plan(BackendDescriptor& plan) const;

 private:
  PlanTarget() = default;
  cudnnHandle_t handle_ = nullptr;
  std::optional<BackendDescriptor> properties_;  // instead of the handle
};

/// One way to solve a problem.
class ConvolutionPlan {
 public:
  /// The first `most` engines that suit, in the order of cuDNN's ranking; the one of that number only, if `only` is given.
  /// Empty if there is none, or cuDNN does not know such a graph.
  [[nodiscard]] static std::vector<ConvolutionPlan> candidates(const ConvolutionProblem& problem,
                                                               const PlanTarget& target, std::size_t most,
                                                               std::optional<std::int64_t> only = {});

  [[nodiscard]] std::size_t workspace() const noexcept { return workspace_; }
  /// Its place in the ranking.
  [[nodiscard]] std::int64_t number() const noexcept { return number_; }
  /// cuDNN's number of the engine.
  [[nodiscard]] std::int64_t engine() const noexcept { return engine_; }
  /// True if cuDNN compiled it while the plan was made.
  [[nodiscard]] bool compiled() const noexcept { return compiled_; }

  /// Computes, on the current device. bias and residual count if the problem has them.
  void run(const void* x, const void* w, const void* y, const void* bias, const void* residual, void* workspace) const;
  /// How long that takes, with maps of no particular contents.
  [[nodiscard]] float milliseconds() const;

 private:
  ConvolutionPlan(const ConvolutionProblem& problem, std::shared_ptr<const std::vector<BackendDescriptor>> graph,
                  BackendDescriptor plan)
      : problem_(problem), graph_(std::move(graph)), plan_(std::move(plan)) {}

  ConvolutionProblem problem_;
  std::shared_ptr<const std::vector<BackendDescriptor>>
      graph_;  // what the plan was described by; all of a problem keep it
  BackendDescriptor plan_;
  std::size_t workspace_ = 0;
  std::int64_t number_ = 0, engine_ = 0;
  bool compiled_ = false;
};

/// The plan for a problem on the current device, made when it is first asked for. Null if cuDNN has no engine that suits.
[[nodiscard]] std::shared_ptr<const ConvolutionPlan> convolution_plan(const ConvolutionProblem& problem);

}  // namespace limbeck::cuda
