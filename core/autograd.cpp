// The tape's engine. The whole idea on one page:
//   1. walk from the root over the edges and count, for every node, how many gradients it will receive;
//   2. keep a heap of nodes whose gradients are complete, highest sequence number (latest op) first;
//   3. pop a node, call its backward, hand each result to the producer of that input; repeat.
// Leaves take part through an accumulator node that adds into Tensor::grad.
#include "core/autograd.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>

#include "core/backward_pass.h"
#include "core/cuda.h"
#include "core/parallel.h"
#include "core/profile.h"

namespace limbeck {
namespace {

thread_local bool recording = true;
thread_local bool anomaly_mode = false;
thread_local bool retained = false;
thread_local std::string scope_path;  // NOLINT(runtime/string): thread_local, never destroyed before main ends

std::uint64_t next_sequence() noexcept {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

/// destination += source, element by element.
void add_into(const Tensor& destination, const Tensor& source) {
  if (destination.device().is_meta()) return;
  const Tensor s = source.dense();
  const bool plain = destination.is_dense() && s.dtype() == destination.dtype();
  if (!plain) {  // rare: a view as gradient, or mixed types
    const Tensor sum = destination.copy_as(DType::kF64);
    const Tensor wide = source.copy_as(DType::kF64);
    add_into(sum, wide);
    copy_tensor(sum, destination);
    return;
  }
  if (destination.device().is_cuda()) {
    cuda::add_view(destination.device(), s.view(), destination.view());
    return;
  }
  visit_dtype(destination.dtype(), [&](auto tag) {
    using T = decltype(tag);
    auto* d = destination.data<T>();
    const auto* p = s.data<T>();
    parallel_for(destination.numel(), 16384, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        if constexpr (std::is_same_v<T, bfloat16>) {
          d[i] = bfloat16(static_cast<float>(d[i]) + static_cast<float>(p[i]));
        } else {
          d[i] = static_cast<T>(d[i] + p[i]);
        }
      }
    });
  });
}

/// True if nobody else can see this tensor's bytes, so that it may be kept and written to.
bool is_sole_owner(const Tensor& t) noexcept {
  return t.impl()->use_count() == 1 && t.impl()->storage->use_count() == 1 && !t.impl()->autograd;
}

/// Adds `gradient` to `slot`; the first contribution is kept without a copy.
void contribute(Tensor& slot, Tensor&& gradient) {
  if (!slot.defined()) {
    slot = std::move(gradient);
    return;
  }
  if (!is_sole_owner(slot)) slot = slot.copy();
  add_into(slot, gradient);
}

void accumulate_into_leaf(const Tensor& leaf, Tensor&& gradient) {
  AutogradMeta& meta = *leaf.impl()->autograd;
  LIMBECK_CHECK(gradient.shape() == leaf.shape(), "backward", "gradient of shape {} for a leaf of shape {}",
                gradient.shape(), leaf.shape());
  if (!meta.grad.defined() && is_sole_owner(gradient) && gradient.dtype() == leaf.dtype() && gradient.is_dense()) {
    meta.grad = std::move(gradient);
  } else if (!meta.grad.defined()) {
    meta.grad = gradient.copy_as(leaf.dtype());
  } else {
    add_into(meta.grad, gradient);
    meta.grad.bump_version();
  }
  for (const auto& hook : meta.hooks) hook(meta.grad);
}

/// Ends the graph at a leaf: adds what arrives to its grad and runs its hooks.
struct AccumulateGrad final : Node {
  explicit AccumulateGrad(const Tensor& t) : leaf(t) {}
  ~AccumulateGrad() override { leaf.impl()->autograd->accumulator = nullptr; }
  const char* name() const override { return "accumulate_grad"; }
  void backward(std::span<const Tensor>, std::span<Tensor>) override {}  // see Engine::differentiate
  void release() override {}
  Tensor leaf;
};

bool all_finite(const Tensor& t) {
  if (!t.device().is_cpu() || !is_floating(t.dtype())) return true;
  for (const double v : t.to_vector<double>()) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

std::string where(const Node& node) {
  return node.scope().empty() ? std::string(node.name()) : fmt::format("{} in {}", node.name(), node.scope());
}

AutogradMeta& meta_of(const Tensor& t) {
  auto& meta = t.impl()->autograd;
  if (!meta) meta = std::make_unique<AutogradMeta>();
  return *meta;
}

}  // namespace

// --- modes --------------------------------------------------------------------------------------------------------

bool grad_enabled() noexcept { return recording; }
bool graph_is_retained() noexcept { return retained; }
NoGradGuard::NoGradGuard(bool enabled) noexcept : previous_(recording) { recording = enabled; }
NoGradGuard::~NoGradGuard() { recording = previous_; }
AnomalyGuard::AnomalyGuard() noexcept : previous_(anomaly_mode) { anomaly_mode = true; }
AnomalyGuard::~AnomalyGuard() { anomaly_mode = previous_; }

ScopeName::ScopeName(const std::string& name) : previous_length_(scope_path.size()) {
  if (!scope_path.empty() && !name.empty()) scope_path += '.';
  scope_path += name;
}
ScopeName::~ScopeName() { scope_path.resize(previous_length_); }
const std::string& ScopeName::current() noexcept { return scope_path; }

// --- saved tensors ------------------------------------------------------------------------------------------------

SavedTensor::SavedTensor(const Tensor& t) : tensor_(t.defined() ? t.detach() : Tensor()) {
  if (t.defined()) version_ = t.version();
}

const Tensor& SavedTensor::unpack(const char* op) const {
  if (tensor_.defined() && tensor_.version() != version_) {
    fail(op,
         "a tensor of shape {} saved for backward was overwritten: it is at version {}, expected {}; "
         "write to a copy(), or after backward",
         tensor_.shape(), tensor_.version(), version_);
  }
  return tensor_;
}

// --- nodes --------------------------------------------------------------------------------------------------------

Node::Node() : sequence_(next_sequence()), scope_(scope_path) {}

Node::~Node() {
  // Destroying a chain of a million nodes must not use a million stack frames: while one node is being destroyed, the
  // producers that die with it are queued instead of destroyed in place.
  static thread_local PooledVector<Ref<Node>>* queue = nullptr;
  if (queue != nullptr) {
    for (auto& edge : edges_) {
      if (edge.node) queue->push_back(std::move(edge.node));
    }
    return;
  }
  PooledVector<Ref<Node>> local;
  queue = &local;
  for (auto& edge : edges_) {
    if (edge.node) local.push_back(std::move(edge.node));
  }
  while (!local.empty()) {
    const Ref<Node> last = std::move(local.back());
    local.pop_back();
  }
  queue = nullptr;
}

void Node::attach(const Tensor& output) {
  LIMBECK_CHECK(output.defined() && !output.impl()->autograd, name(),
                "internal: the output must be a fresh tensor without history");
  auto& meta = meta_of(output);
  meta.requires_grad = true;
  meta.producer = Ref<Node>(this);
  meta.output = output_count_++;
}

bool should_record(std::span<const Tensor* const> inputs) noexcept {
  if (!recording) return false;
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const Tensor* t) { return t != nullptr && t->defined() && t->requires_grad(); });
}
bool should_record(std::initializer_list<const Tensor*> inputs) noexcept {
  return should_record(std::span<const Tensor* const>(inputs.begin(), inputs.size()));
}

void connect_inputs(Node& node, std::span<const Tensor* const> inputs) {
  node.edges_.resize(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor* t = inputs[i];
    if (t == nullptr || !t->defined() || !t->requires_grad()) continue;
    AutogradMeta& meta = *t->impl()->autograd;
    if (meta.producer) {
      node.edges_[i] = {meta.producer, meta.output};
      continue;
    }
    if (meta.accumulator == nullptr) {
      auto accumulator = make_ref<AccumulateGrad>(*t);
      accumulator->output_count_ = 1;
      meta.accumulator = accumulator.get();
      node.edges_[i] = {accumulator, 0};
    } else {
      node.edges_[i] = {Ref<Node>(meta.accumulator), 0};
    }
  }
}

// --- the engine ---------------------------------------------------------------------------------------------------

struct Engine {
  /// Step 1 of the page: counts, for every reachable node, the gradients to come.
  static void count_arrivals(Node* root, std::uint64_t visit) {
    PooledVector<Node*> stack{root};
    enter(root, visit);
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      for (const auto& edge : node->edges_) {
        Node* producer = edge.node.get();
        if (producer == nullptr) continue;
        if (producer->visit_ != visit) {
          enter(producer, visit);
          stack.push_back(producer);
        }
        ++producer->pending_;
      }
    }
  }

  static void enter(Node* node, std::uint64_t visit) {
    node->visit_ = visit;
    node->pending_ = 0;
    node->arrived_.clear();
    node->arrived_.resize(node->output_count_);
  }

  static bool earlier(const Ref<Node>& a, const Ref<Node>& b) { return a->sequence_ < b->sequence_; }

  static void run(const Ref<Node>& root, std::uint32_t output, Tensor seed, const BackwardOptions& options) {
    static std::atomic<std::uint64_t> visits{0};
    count_arrivals(root.get(), ++visits);
    root->arrived_[output] = std::move(seed);

    PooledVector<Ref<Node>> ready{root};
    while (!ready.empty()) {
      std::pop_heap(ready.begin(), ready.end(), earlier);
      const Ref<Node> node = std::move(ready.back());
      ready.pop_back();

      PooledVector<Tensor> gx(node->edges_.size());
      differentiate(*node, gx, options);
      for (std::size_t i = 0; i < gx.size(); ++i) {
        const auto& edge = node->edges_[i];
        if (!edge.node) continue;
        if (gx[i].defined()) contribute(edge.node->arrived_[edge.output], std::move(gx[i]));
        if (--edge.node->pending_ == 0) {
          ready.push_back(edge.node);
          std::push_heap(ready.begin(), ready.end(), earlier);
        }
      }
    }
  }

  /// Step 3 for one node: fills gx from the gradients that arrived.
  static void differentiate(Node& node, PooledVector<Tensor>& gx, const BackwardOptions& options) {
    PooledVector<Tensor> gy = std::exchange(node.arrived_, {});
    const bool any = std::any_of(gy.begin(), gy.end(), [](const Tensor& t) { return t.defined(); });
    if (!any) return;
    if (const auto* leaf = dynamic_cast<const AccumulateGrad*>(&node)) {
      accumulate_into_leaf(leaf->leaf, std::move(gy[0]));
      return;
    }
    LIMBECK_CHECK(!node.released_, "backward",
                  "second backward through {}: its saved tensors are gone; pass retain_graph = true the first time",
                  where(node));
    const ProfileRange range(node.name());
    const bool outer = std::exchange(retained, options.retain_graph);
    node.backward(gy, gx);
    retained = outer;
    if (anomaly_mode) {
      for (std::size_t i = 0; i < gx.size(); ++i) {
        if (gx[i].defined() && !all_finite(gx[i])) {
          fail<NonFiniteError>("backward", "NaN or infinity in the gradient of input {} (shape {}) of {}", i,
                               gx[i].shape(), where(node));
        }
      }
    }
    if (!options.retain_graph) {
      node.release();
      node.released_ = true;
    }
  }
};

void backward(const Tensor& root, const Tensor& seed, BackwardOptions options) {
  LIMBECK_CHECK(root.defined(), "backward", "the root is undefined");
  LIMBECK_CHECK(root.requires_grad(), "backward",
                "the root (shape {}) does not depend on a tensor that requires grad; gradients themselves cannot be "
                "differentiated (double backward is not supported)",
                root.shape());
  if (seed.defined()) {
    LIMBECK_CHECK(seed.shape() == root.shape(), "backward", "seed of shape {}, expected {}", seed.shape(),
                  root.shape());
  } else {
    LIMBECK_CHECK(root.numel() == 1, "backward", "root of shape {} needs a seed; only one element has a default",
                  root.shape());
  }
  const NoGradGuard off;
  const ProfileRange range("backward");
  Tensor start =
      seed.defined() ? seed.copy_as(root.dtype()) : Tensor::full(root.shape(), 1.0, root.dtype(), root.device());
  const AutogradMeta& meta = *root.impl()->autograd;
  if (!meta.producer) {  // a leaf: its gradient is the seed
    accumulate_into_leaf(root, std::move(start));
    return;
  }
  const Ref<Node> producer = meta.producer;
  Engine::run(producer, meta.output, std::move(start), options);
}

// --- the autograd part of Tensor ------------------------------------------------------------------------------------

bool Tensor::requires_grad() const noexcept { return impl_ && impl_->autograd && impl_->autograd->requires_grad; }
bool Tensor::is_leaf() const noexcept { return !(impl_ && impl_->autograd && impl_->autograd->producer); }

const Tensor& Tensor::set_requires_grad(bool value) const {
  LIMBECK_CHECK(defined(), "set_requires_grad", "undefined tensor");
  LIMBECK_CHECK(!value || is_floating(dtype()), "set_requires_grad", "a {} tensor cannot have a gradient",
                name_of(dtype()));
  LIMBECK_CHECK(is_leaf(), "set_requires_grad", "only leaves can be switched; use detach()");
  if (value || impl_->autograd) meta_of(*this).requires_grad = value;
  return *this;
}

Tensor Tensor::grad() const { return impl_ && impl_->autograd ? impl_->autograd->grad : Tensor(); }

void Tensor::set_grad(Tensor gradient) const {
  LIMBECK_CHECK(!gradient.defined() || gradient.shape() == shape(), "set_grad", "gradient of shape {}, expected {}",
                gradient.shape(), shape());
  if (!gradient.defined() && !impl_->autograd) return;
  meta_of(*this).grad = std::move(gradient);
}

Tensor Tensor::detach() const {
  LIMBECK_CHECK(defined(), "detach", "undefined tensor");
  return Tensor(make_ref<TensorImpl>(impl_->storage, impl_->shape, impl_->strides, impl_->offset, impl_->dtype));
}

void Tensor::backward() const { limbeck::backward(*this); }

void Tensor::register_grad_hook(std::function<void(const Tensor&)> hook) const {
  LIMBECK_CHECK(requires_grad() && is_leaf(), "register_grad_hook", "needs a leaf that requires grad, got {}",
                describe());
  meta_of(*this).hooks.push_back(std::move(hook));
}

}  // namespace limbeck
