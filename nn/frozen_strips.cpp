// What this is: see nn/frozen_strips.h, Note [strips].
#include "nn/frozen_strips.h"

#include <algorithm>

#include "core/memory.h"
#include "ops/task_queue.h"

namespace limbeck::nn {
namespace {

constexpr std::int64_t kStripBytes = 1 << 20;  // of wide rows: half of a second-level cache

/// Rows [first, first + count) of image n.
TensorView rows_of(const TensorView& map, std::int64_t n, std::int64_t first, std::int64_t count) {
  TensorView v = map;
  v.shape = {1, map.c(), count, map.w()};
  v.strides = default_strides(v.shape);
  const std::int64_t at = (n * map.h() + first) * map.w() * map.c();
  v.data = map.ptr<char>() + at * static_cast<std::int64_t>(size_of(map.dtype));
  return v;
}

TensorView buffer_of(void* memory, DType dtype, std::int64_t channels, std::int64_t rows, std::int64_t width) {
  const Shape shape{1, channels, rows, width};
  return {memory, dtype, shape, default_strides(shape)};
}

/// The strips of one block.
struct Strips {
  const ops::PackedConv2d* widen;  // or null
  const ops::PackedConv2d& filter;
  const ops::PackedConv2d& narrow;
  TensorView x, residual, y;
  std::int64_t channels, stride, padding, reach;  // of the filter along the rows
  std::int64_t rows = 1;                          // of the result, in a strip
  std::int64_t strips = 1;                        // of an image

  Strips(const StripBlock& block, std::span<const ops::PackedConv2d> packed, const Tensor& x_, const Tensor& residual_,
         const Tensor& y_)
      : widen(block.widen ? &packed[*block.widen] : nullptr),
        filter(packed[block.filter]),
        narrow(packed[block.narrow]),
        x(x_.view()),
        residual(residual_.defined() ? residual_.view() : TensorView{}),
        y(y_.view()) {
    const ops::Conv2dOptions& o = filter.options();
    channels = filter.weight_shape()[0];
    stride = o.stride[0];
    padding = o.padding[0];
    reach = (filter.weight_shape()[2] - 1) * o.dilation[0] + 1;
    const std::int64_t parts = 2 * max_threads();  // so that no thread waits long for another
    const std::int64_t most = max_threads() > 1 ? (y.h() * y.n() + parts - 1) / parts : y.h();
    while (rows < std::min(y.h(), most) && bytes(rows + 1) <= kStripBytes) ++rows;
    strips = (y.h() + rows - 1) / rows;
    rows = (y.h() + strips - 1) / strips;
  }

  [[nodiscard]] std::int64_t wide_rows(std::int64_t r) const { return std::min((r - 1) * stride + reach, x.h()); }
  [[nodiscard]] std::int64_t wide_bytes(std::int64_t r) const {
    return widen != nullptr ? wide_rows(r) * x.w() * channels * 4 : 0;
  }
  [[nodiscard]] std::int64_t filtered_bytes(std::int64_t r) const {
    return r * y.w() * channels * static_cast<std::int64_t>(size_of(filter.compute_dtype()));
  }
  [[nodiscard]] std::int64_t bytes(std::int64_t r) const { return wide_bytes(r) + filtered_bytes(r); }

  void run(char* memory, std::int64_t n, std::int64_t strip) const {
    const std::int64_t first = strip * rows;
    const std::int64_t last = std::min(y.h(), first + rows);
    const std::int64_t from = std::max<std::int64_t>(first * stride - padding, 0);
    const std::int64_t to = std::min(x.h(), (last - 1) * stride - padding + reach);
    TensorView source = rows_of(x, n, from, std::max<std::int64_t>(to - from, 1));
    if (widen != nullptr) {
      const TensorView wide = buffer_of(memory, DType::kF32, channels, source.h(), x.w());
      widen->run_rows(source, {}, {}, wide);
      source = wide;
    }
    const TensorView filtered =
        buffer_of(memory + wide_bytes(rows), filter.compute_dtype(), channels, last - first, y.w());
    filter.run_rows(source, {}, {from, x.h(), first}, filtered);
    narrow.run_rows(filtered, residual.defined() ? rows_of(residual, n, first, last - first) : TensorView{}, {},
                    rows_of(y, n, first, last - first));
  }
};

}  // namespace

std::vector<StripBlock> find_strip_blocks(const Graph& graph, std::span<const ops::PackedConv2d> packed,
                                          const std::vector<bool>& handed_out) {
  const std::vector<int> uses = graph.use_counts();
  // The node that makes the first input of node k, if it is a convolution for rows and nobody else needs the value between them.
  const auto before = [&](std::size_t k) -> std::optional<std::size_t> {
    const auto v = static_cast<std::size_t>(graph.nodes[k].inputs[0]);
    if (v == 0 || uses[v] != 1 || handed_out[v]) return std::nullopt;
    const ops::PackedConv2d& conv = packed[v - 1];
    if (!conv.defined() || !conv.takes_rows() || graph.nodes[v - 1].inputs.size() > 1) return std::nullopt;
    return v - 1;
  };
  std::vector<StripBlock> blocks;
  std::vector<bool> narrows(graph.nodes.size(), false);  // ends a block, so it cannot begin the next
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    if (!packed[k].defined() || packed[k].depthwise() || !packed[k].takes_rows()) continue;
    const auto filter = before(k);
    if (!filter || !packed[*filter].depthwise()) continue;
    auto widen = before(*filter);
    if (widen && (packed[*widen].depthwise() || narrows[*widen])) widen.reset();
    narrows[k] = true;
    blocks.push_back({widen, *filter, k});
  }
  return blocks;
}

void run_strips(const StripBlock& block, std::span<const ops::PackedConv2d> packed, const Tensor& x,
                const Tensor& residual, const Tensor& y) {
  const Strips job(block, packed, x, residual, y);
  for (const ops::PackedConv2d* conv : {job.widen, &job.filter, &job.narrow}) {
    if (conv != nullptr) conv->pack_rows();
  }
  y.bump_version();
  ops::parallel_tasks_with(
      x.size(0) * job.strips, [&] { return Workspace(static_cast<std::size_t>(job.bytes(job.rows))); },
      [&](const Workspace& memory, std::int64_t task) {
        job.run(memory.as<char>(), task / job.strips, task % job.strips);
      });
}

}  // namespace limbeck::nn
