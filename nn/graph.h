// What this is: an inference network as data: a list of operations in the order they run, with the values that they read
//   and write. It is captured from the forward pass of any module, simplified by passes, and read by the ONNX writer
//   (apps/onnx_writer.cpp) and by the frozen plan (nn/frozen_plan.h).
// What it is not: the tape (core/autograd.h), or a language: there are exactly the operations that networks here use.
// Read next: nn/graph_capture.cpp (how a forward pass becomes a graph), nn/graph_passes.cpp (folding, fusing).
//
// Note [sizes]
//   A graph holds no sizes, so that it can run at any. A forward pass, however, sees only numbers: resize to 33x33, but is
//   that 33 a constant, or the height of another map? So the network is captured at three unlike sizes. A target that
//   stays is a constant; one that is the size of some earlier value every time is that value's size; anything else is an
//   error. The capture runs on `meta` tensors, where nothing is computed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/pad.h"
#include "ops/pool2d.h"

namespace limbeck::nn {

/// Index of a value: the input of the graph is 0, the result of node k is k + 1.
using ValueId = std::int32_t;

/// Output size of a resize: that of value `like`, or `fixed` where `like` is negative.
struct SizeRule {
  ValueId like = -1;
  std::array<std::int64_t, 2> fixed{0, 0};
  friend bool operator==(const SizeRule&, const SizeRule&) = default;
};

// Operations. Unless said otherwise they read one value. Tensors are shared with the module they came from.

/// act(conv(x) + bias + residual); reads x and, if there is one, the residual.
struct ConvStep {
  Tensor weight;
  Tensor bias;  ///< may be undefined
  ops::Conv2dOptions options;
  ops::Activation act = ops::Activation::kNone;
};
/// act(batch_norm(x) + residual) with running statistics; reads x and, if there is one, the residual.
struct BatchNormStep {
  Tensor gamma, beta, mean, var;
  double eps = 1e-5;
  ops::Activation act = ops::Activation::kNone;
};
struct LinearStep {
  Tensor weight;
  Tensor bias;  ///< may be undefined
};
/// Elementwise op by its name in ops/elementwise.h: one value, up to two numbers.
struct UnaryStep {
  std::string op;
  std::array<double, 2> values{};
};
/// add, sub, mul, div, maximum, minimum of two values.
struct BinaryStep {
  std::string op;
};
/// Reads any number of values.
struct ConcatStep {
  std::int64_t dim = 1;
};
struct MaxPoolStep {
  ops::Pool2dOptions options;
};
struct AvgPoolStep {
  ops::Pool2dOptions options;
};
/// Means over bins; {1, 1} is the global average.
struct AdaptivePoolStep {
  std::array<std::int64_t, 2> size{1, 1};
};
struct ResizeStep {
  enum class Mode : std::uint8_t { kHalfPixel, kAlignCorners, kNearest };
  Mode mode = Mode::kHalfPixel;
  SizeRule size;
};
struct PadStep {
  ops::Pad2d pad;
  double value = 0;
};
/// [N, ...] to [N, product].
struct FlattenStep {};
/// x * scale + shift per channel of an [N, C, H, W] value: input scaling as part of the graph.
struct ScaleStep {
  std::vector<double> scale, shift;
  bool reverse = false;  ///< the channels first change places: RGB to BGR
};
/// Class ids, [N, K, ...] to i64 [N, ...].
struct ArgmaxStep {};

using Step = std::variant<ConvStep, BatchNormStep, LinearStep, UnaryStep, BinaryStep, ConcatStep, MaxPoolStep,
                          AvgPoolStep, AdaptivePoolStep, ResizeStep, PadStep, FlattenStep, ScaleStep, ArgmaxStep>;

struct GraphNode {
  Step step;
  std::vector<ValueId> inputs;
  std::string name;  ///< the module that ran it, "backbone.layer1.0.conv1"
};

/// Nodes in an order in which they can run. Every value is read by a later node, or is the output or a tap.
struct Graph {
  std::int64_t channels = 3;  ///< of the input, [N, channels, H, W]
  std::vector<GraphNode> nodes;
  ValueId output = 0;
  std::vector<ValueId> taps;  ///< values wanted besides the output

  /// Appends a node and returns its value.
  ValueId add(Step step, std::vector<ValueId> inputs, std::string name);
  /// How often each value is read; the output and every tap count as read once more.
  [[nodiscard]] std::vector<int> use_counts() const;
};

/// Captures what `forward` does in inference: the module must be in eval mode.
/// Shapes: forward maps [N, channels, H, W] to the output
/// Throws: Error naming op and module for training batch norm, for an op that a graph does not know, and for a size that
///         depends on the input in an unknown way (see Note [sizes]).
[[nodiscard]] Graph capture(const std::function<Tensor(const Tensor&)>& forward, std::int64_t channels = 3);

/// The same for several results: the first is the output, the others are taps.
/// Shapes: as capture
[[nodiscard]] Graph capture_all(const std::function<std::vector<Tensor>(const Tensor&)>& forward,
                                std::int64_t channels = 3);

/// Shape of every value for an input of this shape, entry v for value v.
/// Shapes: input [N, channels, H, W]
/// Throws: an input that the network cannot take, naming the module.
[[nodiscard]] std::vector<Shape> infer_shapes(const Graph& graph, const Shape& input);

/// Runs the graph with ordinary ops, one after another: what its nodes mean. See nn/frozen_plan.h for the fast way.
/// Shapes: x [N, channels, H, W]
[[nodiscard]] Tensor run(const Graph& graph, const Tensor& x);
/// The same, and `each` sees every value as soon as it is there, the input (0) too.
/// Shapes: as run
[[nodiscard]] Tensor run(const Graph& graph, const Tensor& x,
                         const std::function<void(std::size_t value, const Tensor&)>& each);
/// The result of one node.
/// Shapes: those of the node; `like` [.., H, W] or undefined
[[nodiscard]] Tensor run_step(const Step& step, std::span<const Tensor> inputs, const Shape& like);

/// Batch norm behind a convolution goes into its weights, with its residual and activation. The result computes the same up
/// to rounding.
[[nodiscard]] Graph fold_batch_norms(const Graph& graph);
/// Without the nodes that output and taps do not need, such as an auxiliary head.
[[nodiscard]] Graph prune(const Graph& graph);
/// A sum or an activation that alone reads a convolution becomes part of it.
[[nodiscard]] Graph fuse_epilogues(const Graph& graph);

/// The graph of f(x * scale + shift), with one number per input channel of f.
[[nodiscard]] Graph scale_input(const Graph& graph, ScaleStep scaling);
/// With the output resized to the size of the input.
[[nodiscard]] Graph resize_output(Graph graph, ResizeStep::Mode mode);
/// With class ids in place of scores.
[[nodiscard]] Graph argmax_output(Graph graph);

/// One line per node: "12 conv2d 3x3 s2 (x, 7) backbone.layer1.0.conv1".
[[nodiscard]] std::string to_string(const Graph& graph);

}  // namespace limbeck::nn
