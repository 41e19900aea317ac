// What this is: the inverted residual block of MobileNets (1x1, depthwise, 1x1) as one step of a frozen plan, a strip of rows at
//   a time, and so the separable convolution (depthwise, 1x1).
// What it is not: a general fusion of convolutions; only here is a map in the middle much larger than the maps around it.
// Read next: nn/frozen_plan.h.
//
// Note [strips]
//   A block widens its map sixfold, filters it, and narrows it again. One after the other these convolutions write and read maps that
//   fit no cache: they wait for memory most of their time. A strip of rows goes through all of them while its wide rows are in the
//   second-level cache; the wide maps never exist. The rows that two strips share are widened twice. Between the convolutions
//   the numbers are f32 where that is free, so a bf16 plan rounds less than its network.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "nn/graph.h"
#include "ops/packed_conv2d.h"

namespace limbeck::nn {

/// Nodes of a graph that run as one. `widen` may be absent; the others follow each other and are read by nobody else.
struct StripBlock {
  std::optional<std::size_t> widen;
  std::size_t filter;
  std::size_t narrow;
  [[nodiscard]] std::size_t first() const noexcept { return widen.value_or(filter); }
};

/// The blocks of a graph whose node k runs as packed[k]. Values that are handed out are never inside one.
/// Shapes: packed: one per node, undefined for other nodes; handed_out: one per value
[[nodiscard]] std::vector<StripBlock> find_strip_blocks(const Graph& graph, std::span<const ops::PackedConv2d> packed,
                                                        const std::vector<bool>& handed_out);

/// y = narrow(filter(widen(x))) + residual, and activations.
/// Shapes: x [N,C,H,W]; residual as y or undefined; y [N,O,OH,OW]; all dense
/// Types:  the compute type of the block
void run_strips(const StripBlock& block, std::span<const ops::PackedConv2d> packed, const Tensor& x,
                const Tensor& residual, const Tensor& y);

}  // namespace limbeck::nn
