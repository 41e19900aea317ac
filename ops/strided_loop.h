// What this is: the loop behind elementwise ops, copies and reductions. It turns K views of one shape, whatever their
//   strides, into the fewest nested loops, so that a kernel only writes the innermost row.
// What it is not: a tensor library of its own; kernels that know their layout (convolution, pooling) write plain loops.
// Read next: ops/elementwise_cpu.cpp.
//
// Note [rows]
//   Dimensions are sorted by the strides of the first view (largest outermost), dimensions of size 1 are dropped, and
//   neighbours that run through memory without a gap in every view become one. Three cases fall out of this:
//     same layout          one dimension: a single row over all elements
//     [N,C,H,W] x [1,C,1,1] two dimensions in NHWC: rows of C elements, the second operand steps 0 between rows
//     anything else        up to kMaxDims dimensions, correct but slower
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/parallel.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// Nested loops over K views of equal shape; dimension 0 is the outermost. There is always at least one dimension.
/// Shapes:   K views of one shape, at most kMaxDims dimensions
template <std::size_t K>
struct LoopNest {
  std::size_t count = 0;
  std::array<std::int64_t, kMaxDims> size{};
  std::array<std::array<std::int64_t, kMaxDims>, K> stride{};  // [view][dimension]

  [[nodiscard]] std::int64_t row_length() const noexcept { return size[count - 1]; }
  /// Step of view k inside a row.
  [[nodiscard]] std::int64_t row_stride(std::size_t k) const noexcept { return stride[k][count - 1]; }
  [[nodiscard]] std::int64_t rows() const noexcept {
    std::int64_t n = 1;
    for (std::size_t d = 0; d + 1 < count; ++d) n *= size[d];
    return n;
  }
};

/// `view` seen as `shape`: missing leading dimensions and dimensions of size 1 get stride 0. The shapes must broadcast.
/// Shapes:   view [1 or n, ..] aligned at the last dimension; returns `shape`
[[nodiscard]] inline TensorView expand_view(const TensorView& view, const Shape& shape) {
  TensorView out{view.data, view.dtype, shape, {}};
  out.strides.resize(shape.size());
  const std::size_t lead = shape.size() - view.shape.size();
  for (std::size_t d = lead; d < shape.size(); ++d) {
    out.strides[d] = view.shape[d - lead] == 1 ? 0 : view.strides[d - lead];
  }
  return out;
}

/// The nest of views that all have the shape of `views[0]`.
/// Shapes:   all equal
template <std::size_t K>
[[nodiscard]] LoopNest<K> make_nest(const std::array<const TensorView*, K>& views) {
  const Shape& shape = views[0]->shape;
  std::array<std::size_t, kMaxDims> order{};
  std::size_t dims = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] != 1) order[dims++] = d;
  }
  sort_by_stride(std::span(order.data(), dims), views[0]->strides);
  LoopNest<K> nest;
  for (std::size_t i = 0; i < dims; ++i) {
    const std::size_t d = order[i];
    const std::int64_t n = shape[d];
    const std::size_t last = nest.count == 0 ? 0 : nest.count - 1;
    bool merge = nest.count > 0;
    for (std::size_t k = 0; k < K && merge; ++k) merge = nest.stride[k][last] == views[k]->strides[d] * n;
    const std::size_t target = merge ? last : nest.count++;
    nest.size[target] = merge ? nest.size[target] * n : n;
    for (std::size_t k = 0; k < K; ++k) nest.stride[k][target] = views[k]->strides[d];
  }
  if (nest.count == 0) {  // a single element
    nest.count = 1;
    nest.size[0] = 1;
  }
  return nest;
}

template <std::size_t K>
using Offsets = std::array<std::int64_t, K>;

/// Offsets of the first element of row `row`.
template <std::size_t K>
[[nodiscard]] Offsets<K> row_offsets(const LoopNest<K>& nest, std::int64_t row) noexcept {
  Offsets<K> at{};
  for (std::size_t d = nest.count - 1; d-- > 0;) {
    const std::int64_t i = d == 0 ? row : row % nest.size[d];
    if (d != 0) row /= nest.size[d];
    for (std::size_t k = 0; k < K; ++k) at[k] += i * nest.stride[k][d];
  }
  return at;
}

/// Calls `body(offsets, length)` for every row on all cores; a long single row is split. `body` must not depend on the
/// split. Elements of a row are row_stride(k) apart.
template <std::size_t K, class Body>
void for_each_row(const LoopNest<K>& nest, const Body& body) {
  constexpr std::int64_t kGrain = 16384;  // elements: below this a second thread costs more than it gives
  const std::int64_t length = nest.row_length();
  if (length == 0) return;
  if (nest.count == 1) {
    parallel_for(length, kGrain, [&](std::int64_t begin, std::int64_t end) {
      Offsets<K> at;
      for (std::size_t k = 0; k < K; ++k) at[k] = begin * nest.row_stride(k);
      body(at, end - begin);
    });
    return;
  }
  parallel_for(nest.rows(), std::max<std::int64_t>(1, kGrain / length), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row_offsets(nest, row), length);
  });
}

}  // namespace limbeck::ops
