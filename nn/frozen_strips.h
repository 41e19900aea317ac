// What this is: which convolutions of a graph are inverted residuals or separable convolutions and so run as one
//   (ops/inverted_residual.h).
// Read next: nn/frozen_plan.h.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "nn/graph.h"
#include "ops/inverted_residual.h"

namespace limbeck::nn {

/// Nodes of a graph that run as one. `widen` may be absent; the others follow each other and are read by nobody else.
struct StripBlock {
  std::optional<std::size_t> widen;
  std::size_t filter;
  std::size_t narrow;
  ops::PackedInvertedResidual conv;
  [[nodiscard]] std::size_t first() const noexcept { return widen.value_or(filter); }
};

/// The blocks of a graph whose node k runs as packed[k]. Values that are handed out are never inside one.
/// Shapes: packed: one per node, undefined for other nodes; handed_out: one per value
[[nodiscard]] std::vector<StripBlock> find_strip_blocks(const Graph& graph, std::span<const ops::PackedConv2d> packed,
                                                        const std::vector<bool>& handed_out);

}  // namespace limbeck::nn
