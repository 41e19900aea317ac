// What this is: see nn/int8_plan.h.
#include "nn/int8_plan.h"

#include "core/autograd.h"
#include "core/memory.h"
#include "ops/byte_maps.h"
#include "ops/concat.h"
#include "ops/interpolate.h"

namespace limbeck::nn {
namespace {

constexpr const char* kName = "int8_plan";

/// The step on bytes; see moves_bytes().
struct ByteRunner {
  std::span<const Tensor> in;
  const Shape& like;

  Tensor operator()(const MaxPoolStep& s) const { return ops::max_pool2d_bytes(in[0], s.options); }
  Tensor operator()(const ConcatStep& s) const { return ops::concat(in, s.dim); }
  Tensor operator()(const ResizeStep& s) const {
    const auto size = s.size.like < 0 ? s.size.fixed : std::array{like[2], like[3]};
    if (s.mode == ResizeStep::Mode::kNearest) return ops::resize_nearest(in[0], size);
    return ops::resize_bilinear_bytes(in[0], size, s.mode == ResizeStep::Mode::kAlignCorners);
  }
  template <class Other>
  Tensor operator()(const Other&) const {
    fail(kName, "a step that moves no bytes");
  }
};

}  // namespace

Int8Plan::Int8Plan(const Graph& graph, const Calibration& ranges, const Int8Weights* weights)
    : graph_(inference_graph(graph)), ranges_(ranges.values), packed_(graph_.nodes.size()) {
  LIMBECK_CHECK(graph_.taps.empty(), kName, "the graph has {} taps, expected none", graph_.taps.size());
  ranges.check(graph_);
  if (weights != nullptr) check_fit(graph_, *weights);
  bytes_ = byte_values(graph_);
  bytes_[static_cast<std::size_t>(graph_.output)] = false;
  last_reader_.assign(graph_.nodes.size() + 1, 0);
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    const GraphNode& node = graph_.nodes[k];
    const ScopeName scope(node.name);
    for (const ValueId v : node.inputs) last_reader_[static_cast<std::size_t>(v)] = k;
    const auto* conv = std::get_if<ConvStep>(&node.step);
    if (conv == nullptr) continue;
    const auto range_of = [&](std::size_t input) { return ranges_[static_cast<std::size_t>(node.inputs[input])]; };
    packed_[k] =
        ops::PackedConv2dI8(weights != nullptr ? weights->at(node.name) : filters_of(*conv), conv->options, conv->act,
                            range_of(0), bytes_[k + 1] ? std::optional(ranges_[k + 1]) : std::nullopt,
                            node.inputs.size() > 1 ? range_of(1) : ops::Quantisation{});
  }
  last_reader_[static_cast<std::size_t>(graph_.output)] = graph_.nodes.size();
}

Tensor Int8Plan::bytes_of(std::span<const Tensor> values, ValueId v) const {
  const auto at = static_cast<std::size_t>(v);
  return values[at].dtype() == DType::kU8 ? values[at] : ops::quantise(values[at], ranges_[at]);
}

Tensor Int8Plan::floats_of(std::span<const Tensor> values, ValueId v) const {
  const auto at = static_cast<std::size_t>(v);
  return values[at].dtype() == DType::kU8 ? ops::dequantise(values[at], ranges_[at]) : values[at];
}

/// The result of node k, bytes or floats as the plan keeps it.
Tensor Int8Plan::run_node(std::size_t k, std::span<const Tensor> values, const Shape& like) const {
  const GraphNode& node = graph_.nodes[k];
  const ScopeName scope(node.name);
  if (packed_[k].defined()) {
    return packed_[k](bytes_of(values, node.inputs[0]),
                      node.inputs.size() > 1 ? bytes_of(values, node.inputs[1]) : Tensor());
  }
  const bool moves = bytes_[k + 1] && moves_bytes(node.step);
  PooledVector<Tensor> inputs;
  for (const ValueId v : node.inputs) inputs.push_back(moves ? bytes_of(values, v) : floats_of(values, v));
  if (moves) return std::visit(ByteRunner{inputs, like}, node.step);
  const Tensor y = run_step(node.step, inputs, like);
  return bytes_[k + 1] ? ops::quantise(y, ranges_[k + 1]) : y;
}

Tensor Int8Plan::operator()(const Tensor& x, const Observer& observer) const {
  LIMBECK_CHECK(x.defined() && x.ndim() == 4 && x.size(1) == graph_.channels && x.device().is_cpu(), kName,
                "got {}, expected [N, {}, H, W] on the CPU", x.defined() ? x.describe() : "nothing", graph_.channels);
  const NoGradGuard off;
  PooledVector<Tensor> values(graph_.nodes.size() + 1);
  PooledVector<Shape> shapes(graph_.nodes.size() + 1);
  const Tensor input = x.dtype() == DType::kF32 ? x : x.copy_as(DType::kF32);
  values[0] = bytes_[0] ? ops::quantise(input, ranges_[0]) : input;
  shapes[0] = x.shape();
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    Shape like;
    if (const auto* resize = std::get_if<ResizeStep>(&graph_.nodes[k].step);
        resize != nullptr && resize->size.like >= 0) {
      like = shapes[static_cast<std::size_t>(resize->size.like)];
    }
    values[k + 1] = run_node(k, values, like);
    shapes[k + 1] = values[k + 1].shape();
    if (observer) observer(k + 1, values[k + 1], values[k + 1].dtype() == DType::kU8 ? &ranges_[k + 1] : nullptr);
    for (const ValueId v : graph_.nodes[k].inputs) {
      if (last_reader_[static_cast<std::size_t>(v)] == k) values[static_cast<std::size_t>(v)] = Tensor();
    }
  }
  return values[static_cast<std::size_t>(graph_.output)];
}

}  // namespace limbeck::nn
