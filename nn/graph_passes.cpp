// What this is: graphs into simpler graphs. Every pass copies the nodes in order and keeps a table from old to new values.
#include "nn/fold.h"
#include "nn/graph.h"

namespace limbeck::nn {
namespace {

/// Copies a graph node by node; a pass overrides what it wants to change.
class Rewriter {
 public:
  explicit Rewriter(const Graph& old) : old_(old), uses_(old.use_counts()), now_(old.nodes.size() + 1, -1) {
    out_.channels = old.channels;
    now_[0] = 0;
  }

  /// `absorb(k, node, inputs)` may return the new value that stands for node k, or -1 to have it copied.
  template <class Absorb>
  Graph run(const Absorb& absorb) {
    for (std::size_t k = 0; k < old_.nodes.size(); ++k) {
      GraphNode node = old_.nodes[k];
      for (ValueId& v : node.inputs) v = now_[static_cast<std::size_t>(v)];
      if (auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0) {
        resize->size.like = now_[static_cast<std::size_t>(resize->size.like)];
      }
      ValueId value = absorb(old_.nodes[k], node);
      if (value < 0) value = out_.add(std::move(node.step), std::move(node.inputs), std::move(node.name));
      now_[k + 1] = value;
    }
    out_.output = now_[static_cast<std::size_t>(old_.output)];
    for (const ValueId v : old_.taps) out_.taps.push_back(now_[static_cast<std::size_t>(v)]);
    return std::move(out_);
  }

  /// The convolution that made new value `v`, if old value `before` is read by one node only and nothing follows its sum yet.
  [[nodiscard]] GraphNode* lone_conv(ValueId before, ValueId v) {
    if (v < 1 || uses_[static_cast<std::size_t>(before)] != 1) return nullptr;
    GraphNode& node = out_.nodes[static_cast<std::size_t>(v) - 1];
    const auto* conv = std::get_if<ConvStep>(&node.step);
    return conv != nullptr && conv->act == ops::Activation::kNone ? &node : nullptr;
  }

  /// Gives the convolution of value `conv` a residual. A residual that is computed later moves the convolution behind it.
  [[nodiscard]] ValueId with_residual(ValueId conv, ValueId residual, ops::Activation act) {
    GraphNode moved = out_.nodes[static_cast<std::size_t>(conv) - 1];
    moved.inputs.push_back(residual);
    std::get<ConvStep>(moved.step).act = act;
    if (residual < conv) {
      out_.nodes[static_cast<std::size_t>(conv) - 1] = std::move(moved);
      return conv;
    }
    return out_.add(std::move(moved.step), std::move(moved.inputs), std::move(moved.name));
  }

 private:
  const Graph& old_;
  std::vector<int> uses_;
  std::vector<ValueId> now_;
  Graph out_;
};

}  // namespace

// A value whose size alone is used counts as needed.
Graph prune(const Graph& graph) {
  std::vector<bool> needed(graph.nodes.size() + 1, false);
  needed[static_cast<std::size_t>(graph.output)] = true;
  for (const ValueId v : graph.taps) needed[static_cast<std::size_t>(v)] = true;
  for (std::size_t k = graph.nodes.size(); k-- > 0;) {
    if (!needed[k + 1]) continue;
    for (const ValueId v : graph.nodes[k].inputs) needed[static_cast<std::size_t>(v)] = true;
    if (const auto* resize = std::get_if<ResizeStep>(&graph.nodes[k].step);
        resize != nullptr && resize->size.like >= 0) {
      needed[static_cast<std::size_t>(resize->size.like)] = true;
    }
  }
  Graph out;
  out.channels = graph.channels;
  std::vector<ValueId> now(graph.nodes.size() + 1, -1);
  now[0] = 0;
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    if (!needed[k + 1]) continue;
    GraphNode node = graph.nodes[k];
    for (ValueId& v : node.inputs) v = now[static_cast<std::size_t>(v)];
    if (auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0) {
      resize->size.like = now[static_cast<std::size_t>(resize->size.like)];
    }
    now[k + 1] = out.add(std::move(node.step), std::move(node.inputs), std::move(node.name));
  }
  out.output = now[static_cast<std::size_t>(graph.output)];
  for (const ValueId v : graph.taps) out.taps.push_back(now[static_cast<std::size_t>(v)]);
  return out;
}

Graph fold_batch_norms(const Graph& graph) {
  Rewriter rewriter(graph);
  Graph out = rewriter.run([&](const GraphNode& before, const GraphNode& node) -> ValueId {
    const auto* bn = std::get_if<BatchNormStep>(&node.step);
    if (bn == nullptr) return -1;
    GraphNode* conv_node = rewriter.lone_conv(before.inputs[0], node.inputs[0]);
    if (conv_node == nullptr || conv_node->inputs.size() > 1) return -1;
    auto& conv = std::get<ConvStep>(conv_node->step);
    const FoldedWeights folded = fold(conv.weight, conv.bias, {bn->gamma, bn->beta, bn->mean, bn->var, bn->eps});
    conv.weight = folded.weight;
    conv.bias = folded.bias;
    if (node.inputs.size() > 1) return rewriter.with_residual(node.inputs[0], node.inputs[1], bn->act);
    conv.act = bn->act;
    return node.inputs[0];
  });
  return prune(out);
}

Graph fuse_epilogues(const Graph& graph) {
  // A sum that repeats one side (a gate of 1x1, say) is no residual. Any size tells.
  const std::vector<Shape> shapes = infer_shapes(graph, {1, graph.channels, 289, 353});
  Rewriter sums(graph);
  const Graph summed = sums.run([&](const GraphNode& before, const GraphNode& node) -> ValueId {
    const auto* binary = std::get_if<BinaryStep>(&node.step);
    if (binary == nullptr || binary->op != "add" || node.inputs[0] == node.inputs[1]) return -1;
    if (!(shapes[static_cast<std::size_t>(before.inputs[0])] == shapes[static_cast<std::size_t>(before.inputs[1])]))
      return -1;
    // The later of two convolutions takes the sum, since its partner is there already.
    for (const std::size_t i :
         node.inputs[0] > node.inputs[1] ? std::array<std::size_t, 2>{0, 1} : std::array<std::size_t, 2>{1, 0}) {
      const GraphNode* conv = sums.lone_conv(before.inputs[i], node.inputs[i]);
      if (conv == nullptr || conv->inputs.size() > 1) continue;
      return sums.with_residual(node.inputs[i], node.inputs[1 - i], ops::Activation::kNone);
    }
    return -1;
  });
  const Graph live = prune(summed);
  Rewriter activations(live);
  return activations.run([&](const GraphNode& before, const GraphNode& node) -> ValueId {
    const auto* unary = std::get_if<UnaryStep>(&node.step);
    if (unary == nullptr || (unary->op != "relu" && unary->op != "relu6")) return -1;
    GraphNode* conv = activations.lone_conv(before.inputs[0], node.inputs[0]);
    if (conv == nullptr) return -1;
    std::get<ConvStep>(conv->step).act = unary->op == "relu" ? ops::Activation::kRelu : ops::Activation::kRelu6;
    return node.inputs[0];
  });
}

Graph scale_input(const Graph& graph, ScaleStep scaling) {
  Graph out;
  out.channels = graph.channels;
  out.add(std::move(scaling), {0}, "input");
  for (GraphNode node : graph.nodes) {
    for (ValueId& v : node.inputs) ++v;
    if (auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0)
      ++resize->size.like;
    out.nodes.push_back(std::move(node));
  }
  out.output = graph.output + 1;
  for (const ValueId v : graph.taps) out.taps.push_back(v + 1);
  return out;
}

Graph resize_output(Graph graph, ResizeStep::Mode mode) {
  graph.output = graph.add(ResizeStep{mode, {0, {0, 0}}}, {graph.output}, "resize");
  return graph;
}

Graph argmax_output(Graph graph) {
  graph.output = graph.add(ArgmaxStep{}, {graph.output}, "argmax");
  return graph;
}

}  // namespace limbeck::nn
