// What this is: a network fixed for inference: batch norm folded, sums and activations fused, weights packed once, and the results
//   of all convolutions in one block of memory whose parts are used again as soon as nobody reads them.
// What it is not: aware of later changes of the network; a plan keeps the weights it was made from.
// Read next: nn/graph.h, ops/packed_conv2d.h.
//
// Note [one block]
//   A value lives from the node that makes it to the last node that reads it. For a given input size the lives and sizes of all
//   values are known, so each gets a fixed place before anything runs: the largest first, at the lowest place that no value
//   holds which lives at the same time; the maps inside a block of nn/frozen_strips.h have none. What is handed out (output and taps) gets
//   memory of its own.
// Note [image by image]
//   Threads that share a batch wait for each other at every layer, which costs small networks a third of their time. On matrix units, those
//   therefore run an image per thread at a time: no thread waits before the end, and the block is that of a few images. Large weights
//   would be read anew for every image, so networks that have them take the batch as a whole. A result does not depend on that.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "nn/frozen_strips.h"
#include "nn/graph.h"
#include "ops/packed_conv2d.h"

namespace limbeck::nn {

/// The plan of a graph.
/// Shapes: input [N, C, H, W], any; a layout is made for every new size, and the last few are kept
/// Types:  f32 or bf16 inside; takes f32, gives f32 (class ids: i64)
/// Error:  against the module, relative to the largest result: f32 that of rounding, 1e-3 for a hundred layers with random weights;
///         with F32Math::kParts, sixteen times coarser, 1e-2; bf16 as the module under autocast
/// Throws: as run() of nn/graph.h; a compute type other than f32 and bf16
class FrozenPlan {
 public:
  explicit FrozenPlan(const Graph& graph, DType compute = DType::kF32, ops::F32Math math = ops::f32_math_setting());

  /// Not for use by two threads at once.
  [[nodiscard]] Tensor operator()(const Tensor& x) { return run(x, {}); }
  /// The same, and the taps of the graph in its order, in the compute type.
  [[nodiscard]] Tensor run(const Tensor& x, std::span<Tensor> taps);

  struct Memory {
    std::size_t block = 0;   ///< bytes of the block, or of those of all threads
    std::size_t values = 0;  ///< bytes of the results of all convolutions side by side
  };
  [[nodiscard]] Memory memory(const Shape& input);
  [[nodiscard]] const Graph& graph() const noexcept { return graph_; }

 private:
  struct Layout {
    Shape input;
    std::vector<Shape> shapes;            // of every value
    std::vector<std::ptrdiff_t> offsets;  // in the block; negative: not in it
    Memory memory;
  };
  using Values = PooledVector<Tensor>;
  /// Memory that one pass writes to.
  struct Places {
    const Layout& layout;
    Tensor block;
    std::span<const Tensor> given{};  // by value: where results that are handed out go; empty: to memory of their own
  };
  [[nodiscard]] bool runs_image_by_image() const;
  [[nodiscard]] bool splits(const Shape& input) const;
  const Layout& layout_for(const Shape& input);
  [[nodiscard]] Layout plan(const Shape& input) const;
  [[nodiscard]] Tensor place(const Places& places, std::size_t value) const;
  [[nodiscard]] Tensor result_of(const Places& places, std::size_t k) const;
  [[nodiscard]] Tensor run_block(const Places& places, const StripBlock& block, std::span<const Tensor> values) const;
  [[nodiscard]] Tensor run_node(const Places& places, std::size_t k, std::span<const Tensor> values) const;
  /// All values that are handed out; the others are gone.
  [[nodiscard]] Values run_batch(const Places& places, const Tensor& x) const;
  [[nodiscard]] Values run_images(const Tensor& x);
  void reserve_blocks(const Layout& layout, std::size_t count);

  Graph graph_;
  DType compute_;
  std::vector<ops::PackedConv2d> packed_;  // by node; not defined for others
  std::vector<std::size_t> last_reader_;   // by value: node after which it is free
  std::vector<bool> handed_out_;           // by value: output or tap
  std::vector<StripBlock> strips_;
  std::vector<std::ptrdiff_t> strip_of_;  // by node: its block in strips_; negative: runs alone
  std::vector<Layout> layouts_;           // newest last
  std::vector<Tensor> blocks_;            // one per thread
  bool image_by_image_ = false;
  bool packed_weights_ = false;  // in the first pass over an image
};

}  // namespace limbeck::nn
