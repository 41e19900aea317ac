// What this is: what a node may ask about the backward pass that runs it.
#pragma once

namespace limbeck {

/// True if this thread's backward pass keeps the graph, so that the node will be asked for the same gradients again.
[[nodiscard]] bool graph_is_retained() noexcept;

}  // namespace limbeck
