// What this is: a network in eval mode on its fastest way: as a frozen plan of exactly the taps that are asked for. The teacher of
//   a distillation, `eval` and `predict` use it.
// What it is not: a copy. The network stays the owner of its weights; when they change, the plan is made anew.
// Read next: nn/frozen_plan.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "nn/frozen_plan.h"

namespace limbeck::models {

/// The way from pictures to logits, as a graph.
/// Shapes:   none
/// Throws:   as nn::capture().
[[nodiscard]] nn::Graph logits_graph(Model& model);

/// Runs a network as a plan where that is possible: on the CPU, in eval mode, in f32 or bf16, if its forward pass is a graph
/// (nn/graph.h). Otherwise its layers run one after another; why is logged once.
/// Shapes:   those of the network; logits are f32, taps are of the compute type, aux is undefined
/// Types:    f32, or bf16 where autocast is on
/// Gradient: none
/// Error:    that of nn::FrozenPlan
class FrozenModel {
 public:
  /// `model` must live as long as this.
  explicit FrozenModel(Model& model, std::vector<std::string> taps = {});

  /// Not for use by two threads at once.
  [[nodiscard]] Output operator()(const Tensor& images);
  /// True if the last call ran as a plan.
  [[nodiscard]] bool planned() const noexcept { return planned_; }

 private:
  struct Source {
    Tensor tensor;
    std::uint32_t version;
  };
  [[nodiscard]] bool may_plan(const Tensor& images) const;
  [[nodiscard]] nn::FrozenPlan* plan_for(DType compute);
  void make(DType compute);

  Model& model_;
  std::vector<std::string> taps_;
  std::vector<Source> sources_;  // parameters and buffers that the plan was made from
  std::optional<nn::FrozenPlan> plan_;
  DType compute_ = DType::kF32;
  bool refused_ = false;  // no graph
  bool planned_ = false;
};

}  // namespace limbeck::models
