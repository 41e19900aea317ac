// What this is: from the ops of a forward pass to a graph; sizes are settled by comparing three passes.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "core/autograd.h"
#include "nn/graph.h"
#include "ops/observer.h"

namespace limbeck::nn {
namespace {

constexpr const char* kWhere = "graph";

// Sizes that have no common factor with any stride, and whose halves, quarters .. are all different.
constexpr std::array<std::array<std::int64_t, 2>, 3> kProbes{{{289, 353}, {323, 419}, {397, 467}}};

/// One pass: the graph, with the numbers it saw in place of size rules.
class Recorder final : public ops::OpObserver {
 public:
  explicit Recorder(const Tensor& input) {
    values_[input.impl().get()] = 0;
    kept_.push_back(input);
  }

  void called(const ops::OpCall& call) override {
    GraphNode node{make_step(call), {}, ScopeName::current()};
    for (const std::size_t i : activations_) {
      const Tensor& t = *call.inputs[i];
      if (t.defined()) node.inputs.push_back(value_of(t, call.op));
    }
    graph.nodes.push_back(std::move(node));
    values_[call.output.impl().get()] = static_cast<ValueId>(graph.nodes.size());
    kept_.push_back(call.output);  // while it lives, its address cannot become another tensor's
  }

  [[nodiscard]] ValueId value_of(const Tensor& t, const char* reader) const {
    const auto found = values_.find(t.impl().get());
    if (found == values_.end()) {
      fail(kWhere,
           "'{}' in {} reads a tensor {} that no known op made; a network that becomes a graph may use convolution, "
           "batch "
           "norm, linear, pooling, resize, pad, concat, flatten and elementwise ops",
           reader, place(), t.describe());
    }
    return found->second;
  }
  [[nodiscard]] const Shape& shape_of(ValueId v) const { return kept_.at(static_cast<std::size_t>(v)).shape(); }

  Graph graph;

 private:
  static std::string place() {
    const std::string& scope = ScopeName::current();
    return scope.empty() ? "the network" : scope;
  }

  /// Also says in activations_ which inputs are values; the others are parameters.
  Step make_step(const ops::OpCall& call) {
    const std::string_view op = call.op;
    const auto in = [&](std::size_t i) -> const Tensor& { return *call.inputs[i]; };
    activations_ = {0};
    if (op == "conv2d") return ConvStep{in(1), in(2), std::get<ops::Conv2dOptions>(call.options), {}};
    if (op == "linear") return LinearStep{in(1), in(2)};
    if (op == "batch_norm") {
      const auto& o = std::get<ops::BatchNormCall>(call.options);
      LIMBECK_CHECK(!o.training, kWhere, "batch norm in {} is in training mode; call eval() before the capture",
                    place());
      activations_ = {0, 5};
      return BatchNormStep{in(1), in(2), in(3), in(4), o.eps, o.act};
    }
    if (op == "concat") {
      activations_.clear();
      for (std::size_t i = 0; i < call.inputs.size(); ++i) activations_.push_back(i);
      return ConcatStep{std::get<ops::DimCall>(call.options).dim};
    }
    if (op == "max_pool2d") return MaxPoolStep{std::get<ops::Pool2dOptions>(call.options)};
    if (op == "avg_pool2d") return AvgPoolStep{std::get<ops::Pool2dOptions>(call.options)};
    const Shape& y = call.output.shape();
    if (op == "global_avg_pool2d" || op == "adaptive_avg_pool2d") return AdaptivePoolStep{{y[2], y[3]}};
    if (op == "resize_bilinear" || op == "resize_nearest") {
      const bool corners = std::get<ops::ResizeCall>(call.options).align_corners;
      const auto mode = op == "resize_nearest" ? ResizeStep::Mode::kNearest
                        : corners              ? ResizeStep::Mode::kAlignCorners
                                               : ResizeStep::Mode::kHalfPixel;
      LIMBECK_CHECK(y.size() == 4, kWhere, "resize of {} in {}, expected [N, C, H, W]", y, place());
      return ResizeStep{mode, {-1, {y[2], y[3]}}};
    }
    if (op == "pad2d") {
      const auto& p = std::get<ops::PadCall>(call.options);
      return PadStep{p.pad, p.value};
    }
    if (op == "reshape") {
      LIMBECK_CHECK(y.size() == 2 && y[0] == in(0).size(0), kWhere,
                    "reshape of {} to {} in {}, a graph knows only the flattening to "
                    "[N, features]",
                    in(0).shape(), y, place());
      return FlattenStep{};
    }
    if (call.inputs.size() == 2) {
      activations_ = {0, 1};
      return BinaryStep{std::string(op)};
    }
    return UnaryStep{std::string(op), std::get<ops::ScalarCall>(call.options).values};
  }

  std::unordered_map<const TensorImpl*, ValueId> values_;
  std::vector<Tensor> kept_;  // entry v is value v
  std::vector<std::size_t> activations_;
};

/// The sizes that node `k` had in the three passes.
template <class S>
std::array<std::array<std::int64_t, 2>, 3> sizes_seen(const std::array<Graph, 3>& graphs, std::size_t k) {
  std::array<std::array<std::int64_t, 2>, 3> out{};
  for (std::size_t p = 0; p < 3; ++p) {
    const S& step = std::get<S>(graphs[p].nodes[k].step);
    if constexpr (std::is_same_v<S, ResizeStep>) out[p] = step.size.fixed;
    if constexpr (std::is_same_v<S, AdaptivePoolStep>) out[p] = step.size;
  }
  return out;
}

}  // namespace

Graph capture(const std::function<Tensor(const Tensor&)>& forward, std::int64_t channels) {
  return capture_all([&](const Tensor& x) { return std::vector<Tensor>{forward(x)}; }, channels);
}

Graph capture_all(const std::function<std::vector<Tensor>(const Tensor&)>& forward, std::int64_t channels) {
  const NoGradGuard off;
  std::array<Graph, 3> graphs;
  std::vector<std::array<std::array<std::int64_t, 2>, 3>>
      sizes;  // of every 4-D value in every pass; {-1, -1} for others
  for (std::size_t p = 0; p < kProbes.size(); ++p) {
    const Tensor x = Tensor::empty({1, channels, kProbes[p][0], kProbes[p][1]}, DType::kF32, kMeta);
    Recorder recorder(x);
    const std::vector<Tensor> results = forward(x);
    LIMBECK_CHECK(!results.empty(), kWhere, "the network has no result");
    recorder.graph.output = recorder.value_of(results[0], "the output");
    for (std::size_t i = 1; i < results.size(); ++i)
      recorder.graph.taps.push_back(recorder.value_of(results[i], "a tap"));
    recorder.graph.channels = channels;
    graphs[p] = std::move(recorder.graph);
    LIMBECK_CHECK(
        graphs[p].nodes.size() == graphs[0].nodes.size() && graphs[p].output == graphs[0].output, kWhere,
        "the network runs {} ops for an input of {}x{} and {} for {}x{}; a graph needs the same ops for all sizes",
        graphs[0].nodes.size(), kProbes[0][0], kProbes[0][1], graphs[p].nodes.size(), kProbes[p][0], kProbes[p][1]);
    sizes.resize(graphs[p].nodes.size() + 1);
    for (std::size_t v = 0; v < sizes.size(); ++v) {
      const Shape& shape = recorder.shape_of(static_cast<ValueId>(v));
      sizes[v][p] =
          shape.size() == 4 ? std::array<std::int64_t, 2>{shape[2], shape[3]} : std::array<std::int64_t, 2>{-1, -1};
    }
  }
  Graph graph = graphs[0];
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    GraphNode& node = graph.nodes[k];
    for (const Graph& other : graphs) {
      LIMBECK_CHECK(other.nodes[k].step.index() == node.step.index() && other.nodes[k].inputs == node.inputs, kWhere,
                    "op {} in {} depends on the size of the input; a graph needs the same ops for all sizes", k,
                    node.name);
    }
    if (std::holds_alternative<AdaptivePoolStep>(node.step)) {
      const auto seen = sizes_seen<AdaptivePoolStep>(graphs, k);
      LIMBECK_CHECK(seen[0] == seen[1] && seen[0] == seen[2], kWhere,
                    "the bins of adaptive pooling in {} depend on the input", node.name);
    }
    if (auto* resize = std::get_if<ResizeStep>(&node.step)) {
      const auto seen = sizes_seen<ResizeStep>(graphs, k);
      if (seen[0] == seen[1] && seen[0] == seen[2]) continue;
      const auto found = std::find(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(k) + 1, seen);
      LIMBECK_CHECK(
          found != sizes.begin() + static_cast<std::ptrdiff_t>(k) + 1, kWhere,
          "the resize in {} goes to {}x{} for an input of {}x{}, which is neither fixed nor the size of an earlier map",
          node.name, seen[0][0], seen[0][1], kProbes[0][0], kProbes[0][1]);
      resize->size = {static_cast<ValueId>(found - sizes.begin()), {0, 0}};
    }
  }
  return prune(graph);
}

}  // namespace limbeck::nn
