// What this is: see nn/frozen_strips.h.
#include "nn/frozen_strips.h"

#include "ops/slice.h"

namespace limbeck::nn {
namespace {

/// All weights of a pass lie in one block, in the order in which they are read: fewer and larger pages.
void pack_side_by_side(const std::vector<StripBlock>& blocks) {
  std::int64_t bytes = 0;
  for (const StripBlock& block : blocks) bytes += block.conv.packed_bytes();
  if (bytes == 0) return;
  const Tensor memory = Tensor::empty({bytes}, DType::kU8);
  std::int64_t at = 0;
  for (const StripBlock& block : blocks) {
    const std::int64_t end = at + block.conv.packed_bytes();
    block.conv.pack_into(ops::slice(memory, 0, at, end));
    at = end;
  }
}

}  // namespace

std::vector<StripBlock> find_strip_blocks(const Graph& graph, std::span<const ops::PackedConv2d> packed,
                                          const std::vector<bool>& handed_out) {
  const std::vector<int> uses = graph.use_counts();
  // The node that makes the first input of node k, if it is a convolution and nobody else needs the value between them.
  const auto before = [&](std::size_t k) -> std::optional<std::size_t> {
    const auto v = static_cast<std::size_t>(graph.nodes[k].inputs[0]);
    if (v == 0 || uses[v] != 1 || handed_out[v]) return std::nullopt;
    if (!packed[v - 1].defined() || graph.nodes[v - 1].inputs.size() > 1) return std::nullopt;
    return v - 1;
  };
  std::vector<StripBlock> blocks;
  std::vector<bool> narrows(graph.nodes.size(), false);  // ends a block, so it cannot begin the next
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    if (!packed[k].defined() || !ops::PackedInvertedResidual::can_narrow(packed[k])) continue;
    const auto filter = before(k);
    if (!filter || !packed[*filter].depthwise()) continue;
    auto widen = before(*filter);
    if (widen && (!ops::PackedInvertedResidual::can_widen(packed[*widen]) || narrows[*widen])) widen.reset();
    narrows[k] = true;
    blocks.push_back(
        {widen, *filter, k, {widen ? std::optional(packed[*widen]) : std::nullopt, packed[*filter], packed[k]}});
  }
  pack_side_by_side(blocks);
  return blocks;
}

}  // namespace limbeck::nn
