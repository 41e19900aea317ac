// What this is: a network fixed for inference in integers of 8 bits: folded and fused as in nn/frozen_plan.h, with maps of bytes between
//   the convolutions.
// What it is not: training aware of 8 bits; the weights are those of the network, rounded.
// Read next: ops/packed_conv2d_i8.h, nn/calibration.h.
//
// Note [bytes and floats]
//   A value that a convolution reads is kept as bytes, made once by whoever makes the value. Convolutions, maxima, resizes and concats
//   between them pass bytes on. Other steps (means, a sum that no convolution could take over, sigmoids) get floats and give floats. What nobody
//   reads as bytes, the scores above all, leaves its convolution in f32.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "nn/calibration.h"
#include "nn/graph.h"
#include "nn/int8_weights.h"
#include "ops/packed_conv2d_i8.h"

namespace limbeck::nn {

/// The int8 plan of a graph without taps. CPU only.
/// Shapes: input [N, C, H, W], any
/// Types:  takes f32, gives f32 (class ids: i64)
/// Error:  that of 8 bits; `limbeck calibrate` measures it. The same bits for any number of threads.
/// Throws: as run() of nn/graph.h; ranges or weights of another network; taps.
class Int8Plan {
 public:
  /// With `weights`, these are used in place of the graph's rounded ones: to the bit the same if they were made of them.
  Int8Plan(const Graph& graph, const Calibration& ranges, const Int8Weights* weights = nullptr);

  /// Called after every node with its value and what is kept of it; a byte value's `how` is not null.
  using Observer = std::function<void(std::size_t value, const Tensor& kept, const ops::Quantisation* how)>;

  /// Not for use by two threads at once.
  [[nodiscard]] Tensor operator()(const Tensor& x, const Observer& observer = {}) const;
  [[nodiscard]] const Graph& graph() const noexcept { return graph_; }

 private:
  [[nodiscard]] Tensor bytes_of(std::span<const Tensor> values, ValueId v) const;
  [[nodiscard]] Tensor floats_of(std::span<const Tensor> values, ValueId v) const;
  [[nodiscard]] Tensor run_node(std::size_t k, std::span<const Tensor> values, const Shape& like) const;

  Graph graph_;
  std::vector<ops::Quantisation> ranges_;    // by value
  std::vector<bool> bytes_;                  // by value
  std::vector<ops::PackedConv2dI8> packed_;  // by node; not defined for others
  std::vector<std::size_t> last_reader_;     // by value: node after which it is free
};

}  // namespace limbeck::nn
