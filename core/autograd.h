// What this is: the tape. Ops that ran on tensors requiring gradients leave Nodes; backward() walks them.
// What it is not: any op's derivative; those are Node subclasses next to the op, in ops/ and distill/.
// Read next: core/autograd.cpp (the engine, one page), ops/README.md (how an op records its node).
//
// Note [the graph]
//   A Node is one executed op. Its edges point to the producers of its inputs: another Node, or the gradient
//   accumulator of a leaf. Nodes carry a sequence number; backward() pops the highest number first, so the order is
//   a pure function of the program and results repeat bit for bit. Nothing recurses: neither the walk nor the
//   destruction of a long chain.
// Note [saved tensors]
//   A node keeps tensors as SavedTensor: an alias without history (so no reference cycle can arise) and the
//   storage's version at that time. If somebody writes to the storage before backward needs it, unpack() throws and
//   names the op, the shape and both versions.
// Double backward is out of scope; asking for it throws and says so.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory.h"
#include "core/tensor.h"

namespace limbeck {

/// True when ops on this thread record nodes.
[[nodiscard]] bool grad_enabled() noexcept;

/// Switches recording off (or back on) for a scope.
class NoGradGuard {
 public:
  explicit NoGradGuard(bool enabled = false) noexcept;
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;
  ~NoGradGuard();

 private:
  bool previous_;
};

/// While alive, backward() checks every produced gradient for NaN and infinity and names the op that made it.
class AnomalyGuard {
 public:
  AnomalyGuard() noexcept;
  AnomalyGuard(const AnomalyGuard&) = delete;
  AnomalyGuard& operator=(const AnomalyGuard&) = delete;
  ~AnomalyGuard();

 private:
  bool previous_;
};

/// A tensor kept for backward, protected against later in-place writes.
class SavedTensor {
 public:
  SavedTensor() = default;
  SavedTensor(const Tensor& t);  // NOLINT(google-explicit-constructor): nodes assign tensors directly
  [[nodiscard]] bool defined() const noexcept { return tensor_.defined(); }
  /// The tensor, or an error naming `op` if its storage changed since it was saved.
  [[nodiscard]] const Tensor& unpack(const char* op) const;
  void reset() noexcept { tensor_ = Tensor(); }

 private:
  Tensor tensor_;
  std::uint32_t version_ = 0;
};

/// One executed op. A subclass keeps what its derivative needs in SavedTensor members.
///
///   struct MulNode final : Node {
///     SavedTensor a, b;
///     const char* name() const override { return "mul"; }
///     void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
///       if (needs_input_grad(0)) gx[0] = ...;
///       if (needs_input_grad(1)) gx[1] = ...;
///     }
///     void release() override { a.reset(); b.reset(); }
///   };
class Node : public RefCounted {
 public:
  Node();
  ~Node() override;

  [[nodiscard]] virtual const char* name() const = 0;
  /// `gy[i]`: gradient with respect to output i, undefined if none arrived (an op with one output always gets one).
  /// Fill `gx[i]` for every input with needs_input_grad(i). A returned tensor must be fresh or `gy[k]` itself; it has
  /// the shape of the input. Runs with recording off.
  virtual void backward(std::span<const Tensor> gy, std::span<Tensor> gx) = 0;
  /// Drops the saved tensors; called after backward unless the graph is retained.
  virtual void release() = 0;

  [[nodiscard]] bool needs_input_grad(std::size_t i) const noexcept { return i < edges_.size() && edges_[i].node; }

  struct Edge {
    Ref<Node> node;            // producer of the input; null: no gradient needed
    std::uint32_t output = 0;  // which of its outputs
  };
  [[nodiscard]] const PooledVector<Edge>& edges() const noexcept { return edges_; }
  /// Where the op ran, e.g. "backbone.layer1.0.conv2"; empty outside of modules.
  [[nodiscard]] std::string_view scope() const noexcept { return scope_; }

  /// Makes `output` a result of this node (the next output number). Call once per output, in order.
  void attach(const Tensor& output);

 private:
  friend struct Engine;
  friend void connect_inputs(Node& node, std::span<const Tensor* const> inputs);
  PooledVector<Edge> edges_;
  std::uint64_t sequence_ = 0;
  std::uint32_t output_count_ = 0;
  bool released_ = false;
  PooledString scope_;
  // Scratch of the engine, valid during one backward (see core/autograd.cpp).
  std::uint64_t visit_ = 0;
  std::uint32_t pending_ = 0;
  PooledVector<Tensor> arrived_;
};

/// Part of a tensor that takes part in differentiation.
struct AutogradMeta : Pooled {
  bool requires_grad = false;
  Tensor grad;                  // leaves only
  Ref<Node> producer;           // null for leaves
  std::uint32_t output = 0;     // which output of the producer
  Node* accumulator = nullptr;  // leaves: not owned, alive while a graph refers to it
  std::vector<std::function<void(const Tensor&)>> hooks;
};

/// True if recording is on and one of the inputs requires a gradient. Null pointers and undefined tensors are skipped.
[[nodiscard]] bool should_record(std::initializer_list<const Tensor*> inputs) noexcept;
[[nodiscard]] bool should_record(std::span<const Tensor* const> inputs) noexcept;

/// Gives `node` one edge per input. Called by record(); ops do not need it.
void connect_inputs(Node& node, std::span<const Tensor* const> inputs);

/// Creates a node of type N with one edge per entry of `inputs` (undefined or null entries get no gradient), or a null
/// Ref when nothing needs recording:
///
///   if (auto node = record<MulNode>({&a, &b})) { node->a = a; node->b = b; node->attach(y); }
template <class N>
[[nodiscard]] Ref<N> record(std::span<const Tensor* const> inputs) {
  if (!should_record(inputs)) return nullptr;
  auto node = make_ref<N>();
  connect_inputs(*node, inputs);
  return node;
}
template <class N>
[[nodiscard]] Ref<N> record(std::initializer_list<const Tensor*> inputs) {
  return record<N>(std::span<const Tensor* const>(inputs.begin(), inputs.size()));
}

struct BackwardOptions {
  bool retain_graph = false;  ///< keep saved tensors so that backward can run again
};

/// Accumulates d(root)/d(leaf) into the `grad` of every leaf that requires it.
/// `seed` is the gradient of the final objective with respect to `root` (same shape); default 1 for one element.
/// Throws: root without history; a second backward through a released graph; a saved tensor that was overwritten.
void backward(const Tensor& root, const Tensor& seed = {}, BackwardOptions options = {});

/// Names the part of the program that runs now; shown in error messages of nodes and in anomaly mode.
class ScopeName {
 public:
  explicit ScopeName(const std::string& name);
  ScopeName(const ScopeName&) = delete;
  ScopeName& operator=(const ScopeName&) = delete;
  ~ScopeName();
  /// "outer.inner", empty outside of any scope.
  [[nodiscard]] static const std::string& current() noexcept;

 private:
  std::size_t previous_length_;
};

}  // namespace limbeck
