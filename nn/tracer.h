// What this is: a recorder of the leaf layers that run in a forward pass, with output shapes, parameters and MACs.
// What it is not: a profiler or a graph. `limbeck summary` and the size tests read it.
//
// Note [MACs]
//   One multiply-add of a convolution or a linear layer counts as one. Batch norm, bias, activation, pooling and resize
//   count as zero. This is the convention of the published numbers that the tests hold the networks to; FLOPs are twice that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace limbeck::nn {

class UnaryModule;

/// One executed layer.
struct LayerRecord {
  std::string name;  ///< "backbone.layer1.0.conv1"
  std::string type;  ///< "Conv2d 3x3 s2"; "BatchNorm2d + ReLU" where the activation is fused
  Shape input;
  Shape output;
  DType dtype = DType::kF32;
  std::int64_t params = 0;
  std::int64_t macs = 0;
};

/// While alive, every leaf layer that runs on this thread is recorded. Tracers nest; the innermost one records.
/// A layer that runs twice (shared weights) appears twice, with its parameters counted in the first row only.
/// Shapes: works on meta tensors, where nothing is computed.
class LayerTracer {
 public:
  LayerTracer() noexcept : previous_(active_) { active_ = this; }
  LayerTracer(const LayerTracer&) = delete;
  LayerTracer& operator=(const LayerTracer&) = delete;
  ~LayerTracer() { active_ = previous_; }

  [[nodiscard]] static LayerTracer* active() noexcept { return active_; }
  /// Adds `layer`, which has just produced `output` from a tensor of shape `input`. `suffix` is appended to the type.
  void record(const UnaryModule& layer, const Shape& input, const Tensor& output, const char* suffix = "");

  [[nodiscard]] const std::vector<LayerRecord>& records() const noexcept { return records_; }
  [[nodiscard]] std::int64_t total_params() const noexcept;
  [[nodiscard]] std::int64_t total_macs() const noexcept;

 private:
  static inline thread_local LayerTracer* active_ = nullptr;
  LayerTracer* previous_;
  std::vector<LayerRecord> records_;
  std::vector<const UnaryModule*> seen_;
};

}  // namespace limbeck::nn
