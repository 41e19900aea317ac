// What this is: nn/frozen_plan.h.
#include "nn/frozen_plan.h"

#include <algorithm>
#include <numeric>

#include "core/autograd.h"
#include "ops/copy.h"

namespace limbeck::nn {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLayoutsKept = 8;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// A value that wants a place in the block.
struct Life {
  std::size_t value, first, last, bytes;
};

/// The lowest place for `life` beside those that live at the same time and have a place already.
std::size_t lowest_place(const Life& life, const std::vector<Life>& placed,
                         const std::vector<std::ptrdiff_t>& offsets) {
  std::vector<std::pair<std::size_t, std::size_t>> taken;
  for (const Life& other : placed) {
    if (other.last < life.first || life.last < other.first) continue;
    const auto begin = static_cast<std::size_t>(offsets[other.value]);
    taken.emplace_back(begin, begin + other.bytes);
  }
  std::sort(taken.begin(), taken.end());
  std::size_t place = 0;
  for (const auto& [begin, end] : taken) {
    if (place + life.bytes <= begin) break;
    place = std::max(place, end);
  }
  return place;
}

}  // namespace

FrozenPlan::FrozenPlan(const Graph& graph, DType compute)
    : graph_(fuse_epilogues(fold_batch_norms(graph))), compute_(compute), packed_(graph_.nodes.size()) {
  LIMBECK_CHECK(compute == DType::kF32 || compute == DType::kBF16, "frozen_plan",
                "compute type {}, expected f32 or bf16", name_of(compute));
  last_reader_.assign(graph_.nodes.size() + 1, 0);
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    GraphNode& node = graph_.nodes[k];
    for (const ValueId v : node.inputs) last_reader_[static_cast<std::size_t>(v)] = k;
    auto* conv = std::get_if<ConvStep>(&node.step);
    if (conv == nullptr) continue;
    conv->weight = conv->weight.copy_as(DType::kF32);  // the module may go on training
    if (conv->bias.defined()) conv->bias = conv->bias.copy_as(DType::kF32);
    packed_[k] = ops::PackedConv2d(conv->weight, conv->bias, conv->options, conv->act, compute);
  }
  last_reader_[static_cast<std::size_t>(graph_.output)] = graph_.nodes.size();
}

FrozenPlan::Layout FrozenPlan::plan(const Shape& input) const {
  Layout layout;
  layout.input = input;
  layout.shapes = infer_shapes(graph_, input);
  layout.offsets.assign(layout.shapes.size(), -1);
  std::vector<Life> lives;
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    if (!packed_[k].defined()) continue;
    const auto elements = static_cast<std::size_t>(layout.shapes[k + 1].numel());
    lives.push_back({k + 1, k, last_reader_[k + 1], aligned(elements * size_of(compute_))});
  }
  std::stable_sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) { return a.bytes > b.bytes; });
  std::vector<Life> placed;
  for (const Life& life : lives) {
    const std::size_t place = lowest_place(life, placed, layout.offsets);
    layout.offsets[life.value] = static_cast<std::ptrdiff_t>(place);
    placed.push_back(life);
    layout.memory.block = std::max(layout.memory.block, place + life.bytes);
    layout.memory.values += life.bytes;
  }
  return layout;
}

const FrozenPlan::Layout& FrozenPlan::layout_for(const Shape& input) {
  const auto found = std::find_if(layouts_.begin(), layouts_.end(), [&](const Layout& l) { return l.input == input; });
  if (found != layouts_.end()) {
    std::rotate(found, found + 1, layouts_.end());
    return layouts_.back();
  }
  Layout made = plan(input);
  if (layouts_.size() == kLayoutsKept) layouts_.erase(layouts_.begin());
  layouts_.push_back(std::move(made));
  return layouts_.back();
}

FrozenPlan::Memory FrozenPlan::memory(const Shape& input) { return layout_for(input).memory; }

Tensor FrozenPlan::place(const Layout& layout, std::size_t value) const {
  const Shape& shape = layout.shapes[value];
  const std::int64_t offset = layout.offsets[value] / static_cast<std::ptrdiff_t>(size_of(compute_));
  return Tensor(
      Ref<TensorImpl>(new TensorImpl(block_.impl()->storage, shape, default_strides(shape), offset, compute_)));
}

Tensor FrozenPlan::operator()(const Tensor& x) {
  const NoGradGuard off;
  const Layout& layout = layout_for(x.shape());
  if (!block_.defined() || static_cast<std::size_t>(block_.numel()) < layout.memory.block) {
    block_ = Tensor::empty({static_cast<std::int64_t>(layout.memory.block)}, DType::kU8);
  }
  std::vector<Tensor> values(graph_.nodes.size() + 1);
  values[0] = ops::cast(x, compute_).dense();
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    const GraphNode& node = graph_.nodes[k];
    const ScopeName scope(node.name);
    const auto input = [&](std::size_t i) -> const Tensor& { return values[static_cast<std::size_t>(node.inputs[i])]; };
    if (packed_[k].defined()) {
      const Tensor y = place(layout, k + 1);
      packed_[k].run_into(input(0), node.inputs.size() > 1 ? input(1) : Tensor(), y);
      values[k + 1] = y;
    } else {
      std::vector<Tensor> inputs;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) inputs.push_back(input(i));
      Shape like;
      if (const auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0) {
        like = layout.shapes[static_cast<std::size_t>(resize->size.like)];
      }
      Tensor y = run_step(node.step, inputs, like);
      // A step with nothing to do gives its input back, whose place is free after this node.
      if (y.impl()->storage.get() == block_.impl()->storage.get()) y = y.copy();
      values[k + 1] = y;
    }
    for (const ValueId v : node.inputs) {
      if (last_reader_[static_cast<std::size_t>(v)] == k) values[static_cast<std::size_t>(v)] = Tensor();
    }
  }
  const Tensor& y = values[static_cast<std::size_t>(graph_.output)];
  if (y.dtype() == DType::kI64) return y;
  return y.dtype() == DType::kF32 ? y.copy() : y.copy_as(DType::kF32);  // the block is the plan's
}

}  // namespace limbeck::nn
