// What this is: nn/frozen_plan.h.
#include "nn/frozen_plan.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv2d_engine.h"
#include "ops/copy.h"
#include "ops/slice.h"
#include "ops/task_queue.h"

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

/// Kernels that this thread calls count on no others.
class OneThread {
 public:
  OneThread() : before_(max_threads()) { set_threads(1); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread() { set_threads(before_); }

 private:
  int before_;
};

Shape one_image(Shape batch) {
  batch[0] = 1;
  return batch;
}

/// Image n of a dense batch, as storage of its own: threads that write neighbours must not count versions in one counter.
Tensor image_of(const Tensor& batch, std::int64_t n) {
  const Shape shape = one_image(batch.shape());
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(batch.dtype());
  char* const data = static_cast<char*>(batch.raw_data()) + static_cast<std::size_t>(n) * bytes;
  auto storage = make_ref<Storage>(data, bytes, std::make_shared<const Tensor>(batch));
  return Tensor(make_ref<TensorImpl>(std::move(storage), shape, default_strides(shape), 0, batch.dtype()));
}

}  // namespace

FrozenPlan::FrozenPlan(const Graph& graph, DType compute, ops::F32Math math)
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
    packed_[k] = ops::PackedConv2d(conv->weight, conv->bias, conv->options, conv->act, compute, math);
  }
  handed_out_.assign(graph_.nodes.size() + 1, false);
  const auto hand_out = [&](ValueId v) {
    last_reader_[static_cast<std::size_t>(v)] = graph_.nodes.size();
    handed_out_[static_cast<std::size_t>(v)] = true;
  };
  hand_out(graph_.output);
  for (const ValueId v : graph_.taps) hand_out(v);
  strips_ = find_strip_blocks(graph_, packed_, handed_out_);
  strip_of_.assign(graph_.nodes.size(), -1);
  for (std::size_t b = 0; b < strips_.size(); ++b) {
    for (const std::size_t k : {strips_[b].first(), strips_[b].filter, strips_[b].narrow}) {
      strip_of_[k] = static_cast<std::ptrdiff_t>(b);
    }
    // Its input is read when the block runs, at its last node.
    auto& last = last_reader_[static_cast<std::size_t>(graph_.nodes[strips_[b].first()].inputs[0])];
    last = std::max(last, strips_[b].narrow);
  }
  image_by_image_ = runs_image_by_image();
}

bool FrozenPlan::runs_image_by_image() const {
  constexpr std::int64_t kSmallBytes = 16
                                       << 20;  // of weights; they are read from the third-level cache for every image
  std::int64_t bytes = 0;
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    if (!packed_[k].defined()) {
      if (handed_out_[k + 1]) return false;  // its type is known when it has run
      continue;
    }
    if (!packed_[k].on_matrix_units() && !packed_[k].depthwise()) return false;
    bytes += packed_[k].weight().numel() * static_cast<std::int64_t>(size_of(compute_));
  }
  return !handed_out_[0] && bytes <= kSmallBytes;
}

FrozenPlan::Layout FrozenPlan::plan(const Shape& input) const {
  Layout layout;
  layout.input = input;
  layout.shapes = infer_shapes(graph_, input);
  layout.offsets.assign(layout.shapes.size(), -1);
  std::vector<Life> lives;
  if (compute_ != DType::kF32 && !handed_out_[0]) {  // the input, rounded
    lives.push_back({0, 0, last_reader_[0], aligned(static_cast<std::size_t>(input.numel()) * size_of(compute_))});
  }
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    if (!packed_[k].defined()) continue;
    const std::size_t bytes = aligned(static_cast<std::size_t>(layout.shapes[k + 1].numel()) * size_of(compute_));
    layout.memory.values += bytes;
    const bool inside = strip_of_[k] >= 0 && strips_[static_cast<std::size_t>(strip_of_[k])].narrow != k;
    if (!handed_out_[k + 1] && !inside) lives.push_back({k + 1, k, last_reader_[k + 1], bytes});
  }
  std::stable_sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) { return a.bytes > b.bytes; });
  std::vector<Life> placed;
  for (const Life& life : lives) {
    const std::size_t place = lowest_place(life, placed, layout.offsets);
    layout.offsets[life.value] = static_cast<std::ptrdiff_t>(place);
    placed.push_back(life);
    layout.memory.block = std::max(layout.memory.block, place + life.bytes);
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

bool FrozenPlan::splits(const Shape& input) const {
  const std::int64_t threads = max_threads();
  if (!image_by_image_ || threads < 2 || input.size() == 0) return false;
  const bool even = input[0] % threads == 0 || input[0] >= 4 * threads;  // else threads would be idle at the end
  return input[0] > 1 && even && !ReferenceGuard::active() && ops::ConvEngineGuard::engine() == ops::ConvEngine::kAuto;
}

FrozenPlan::Memory FrozenPlan::memory(const Shape& input) {
  if (!splits(input)) return layout_for(input).memory;
  const Memory one = layout_for(one_image(input)).memory;
  const std::int64_t blocks = std::min<std::int64_t>(input[0], max_threads());
  return {one.block * static_cast<std::size_t>(blocks), one.values * static_cast<std::size_t>(input[0])};
}

Tensor FrozenPlan::place(const Places& places, std::size_t value) const {
  const Shape& shape = places.layout.shapes[value];
  const std::int64_t offset = places.layout.offsets[value] / static_cast<std::ptrdiff_t>(size_of(compute_));
  return Tensor(
      Ref<TensorImpl>(new TensorImpl(places.block.impl()->storage, shape, default_strides(shape), offset, compute_)));
}

/// Memory for the result of node k.
Tensor FrozenPlan::result_of(const Places& places, std::size_t k) const {
  if (places.layout.offsets[k + 1] >= 0) return place(places, k + 1);
  return places.given.empty() ? Tensor::empty(places.layout.shapes[k + 1], compute_) : places.given[k + 1];
}

Tensor FrozenPlan::run_block(const Places& places, const StripBlock& block, std::span<const Tensor> values) const {
  const auto value = [&](std::size_t k, std::size_t i) {
    return values[static_cast<std::size_t>(graph_.nodes[k].inputs[i])];
  };
  const Tensor residual = graph_.nodes[block.narrow].inputs.size() > 1 ? value(block.narrow, 1) : Tensor();
  const Tensor y = result_of(places, block.narrow);
  const auto low = [&](const Tensor& t) { return t.defined() ? ops::cast(t, compute_).dense() : t; };
  block.conv.run_into(low(value(block.first(), 0)), low(residual), y);
  return y;
}

/// The result of node k.
Tensor FrozenPlan::run_node(const Places& places, std::size_t k, std::span<const Tensor> values) const {
  const GraphNode& node = graph_.nodes[k];
  const ScopeName scope(node.name);
  PooledVector<Tensor> inputs;
  for (const ValueId v : node.inputs) inputs.push_back(values[static_cast<std::size_t>(v)]);
  if (packed_[k].defined()) {
    const Tensor y = result_of(places, k);
    packed_[k].run_into(inputs[0], inputs.size() > 1 ? inputs[1] : Tensor(), y);
    return y;
  }
  Shape like;
  if (const auto* resize = std::get_if<ResizeStep>(&node.step); resize != nullptr && resize->size.like >= 0) {
    like = places.layout.shapes[static_cast<std::size_t>(resize->size.like)];
  }
  Tensor y = run_step(node.step, inputs, like);
  // A step with nothing to do gives its input back, whose memory is the caller's or free after this node.
  for (const Tensor& input : inputs) {
    if (y.impl()->storage.get() == input.impl()->storage.get()) return y.copy();
  }
  return y;
}

FrozenPlan::Values FrozenPlan::run_batch(const Places& places, const Tensor& x) const {
  const bool in_strips = !ReferenceGuard::active();
  Values values(graph_.nodes.size() + 1);
  if (places.layout.offsets[0] >= 0) {
    values[0] = place(places, 0);
    values[0].copy_(x);
  } else {
    values[0] = ops::cast(x, compute_).dense();
  }
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    const std::ptrdiff_t strip = in_strips ? strip_of_[k] : -1;
    if (strip < 0) {
      values[k + 1] = run_node(places, k, values);
    } else {
      const StripBlock& block = strips_[static_cast<std::size_t>(strip)];
      if (block.narrow != k) continue;
      const ScopeName scope(graph_.nodes[k].name);
      values[k + 1] = run_block(places, block, values);
    }
    for (std::size_t v = 0; v <= k; ++v) {
      if (last_reader_[v] == k) values[v] = Tensor();
    }
  }
  return values;
}

FrozenPlan::Values FrozenPlan::run_images(const Tensor& x) {
  Values results(graph_.nodes.size() + 1);
  const Layout& layout = layout_for(one_image(x.shape()));
  for (std::size_t v = 1; v < results.size(); ++v) {
    if (!handed_out_[v]) continue;
    Shape shape = layout.shapes[v];
    shape[0] = x.size(0);
    results[v] = Tensor::empty(shape, compute_);
  }
  reserve_blocks(layout, static_cast<std::size_t>(std::min<std::int64_t>(x.size(0), max_threads())));
  const auto run_image = [&](const Tensor& block, std::int64_t n) {
    Values given(results.size());
    for (std::size_t v = 1; v < results.size(); ++v) {
      if (results[v].defined()) given[v] = image_of(results[v], n);
    }
    static_cast<void>(run_batch({layout, block, given}, ops::slice(x, 0, n, n + 1)));
  };
  std::int64_t first = 0;
  if (!packed_weights_) run_image(blocks_[0], first++);
  packed_weights_ = true;
  struct Worker {
    const Tensor& block;
    AutocastGuard precision;
    NoGradGuard off{};
    OneThread alone{};
  };
  std::atomic<std::size_t> workers{0};
  const bool autocast = AutocastGuard::enabled();
  ops::parallel_tasks_with(
      x.size(0) - first,
      [&] {
        return Worker{blocks_[workers++], AutocastGuard(autocast)};
      },
      [&](const Worker& worker, std::int64_t task) { run_image(worker.block, first + task); });
  return results;
}

void FrozenPlan::reserve_blocks(const Layout& layout, std::size_t count) {
  if (blocks_.size() < count) blocks_.resize(count);
  for (std::size_t t = 0; t < count; ++t) {
    Tensor& block = blocks_[t];
    if (block.defined() && static_cast<std::size_t>(block.numel()) >= layout.memory.block) continue;
    block = Tensor::empty({static_cast<std::int64_t>(layout.memory.block)}, DType::kU8);
  }
}

Tensor FrozenPlan::run(const Tensor& x, std::span<Tensor> taps) {
  LIMBECK_CHECK(taps.empty() || taps.size() == graph_.taps.size(), "frozen_plan", "{} taps asked for, the graph has {}",
                taps.size(), graph_.taps.size());
  const NoGradGuard off;
  Values values;
  if (splits(x.shape())) {
    values = run_images(x);
  } else {
    const Layout& layout = layout_for(x.shape());
    reserve_blocks(layout, 1);
    values = run_batch({layout, blocks_[0]}, x);
  }
  for (std::size_t i = 0; i < taps.size(); ++i) taps[i] = values[static_cast<std::size_t>(graph_.taps[i])];
  const Tensor& y = values[static_cast<std::size_t>(graph_.output)];
  return y.dtype() == DType::kBF16 ? y.copy_as(DType::kF32) : y;
}

}  // namespace limbeck::nn
