// What this is: views of one shape as few nested loops, in a form that a kernel takes by value.
// Why: an index of a flat grid is taken apart by one division per loop; merged loops make most of them unnecessary. See
//   Note [rows] in ops/strided_loop.h, which does the same for loops on the CPU.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::cuda {

/// Loops over K views; loop 0 is the innermost. `lanes` elements of the innermost loop are handled at once.
template <int K>
struct Nest {
  int count = 1;
  unsigned size[kMaxDims] = {1, 1, 1, 1, 1, 1};  // of loop 0: in units of `lanes`
  std::int64_t stride[K][kMaxDims] = {};         // in elements, of one step of the loop
  unsigned total = 1;                            // product of the sizes
};

/// The loops of views that all have the shape of `views[0]`.
/// `lanes` > 1 asks for vectors: it is used if every view is consecutive (or, but for the first, constant) along the
/// innermost loop, sizes and strides are multiples of it, and addresses of vectors are aligned; else the result has
/// lanes = 1. Returns the lanes used in `lanes`.
template <int K>
[[nodiscard]] Nest<K> make_nest(const std::array<const TensorView*, K>& views, int& lanes) {
  const Shape& shape = views[0]->shape;
  std::array<std::size_t, kMaxDims> order{};
  std::size_t dims = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] != 1) order[dims++] = d;
  }
  sort_by_stride(std::span(order.data(), dims), views[0]->strides);
  std::array<std::int64_t, kMaxDims> size{1, 1, 1, 1, 1, 1};
  Nest<K> nest;
  nest.count = 0;
  for (std::size_t i = dims; i-- > 0;) {  // innermost first
    const std::size_t d = order[i];
    const int last = nest.count - 1;
    bool merge = last >= 0;
    for (int k = 0; k < K && merge; ++k)
      merge =
          views[static_cast<std::size_t>(k)]->strides[d] == nest.stride[k][last] * size[static_cast<std::size_t>(last)];
    if (merge) {
      size[static_cast<std::size_t>(last)] *= shape[d];
      continue;
    }
    for (int k = 0; k < K; ++k) nest.stride[k][nest.count] = views[static_cast<std::size_t>(k)]->strides[d];
    size[static_cast<std::size_t>(nest.count++)] = shape[d];
  }
  if (nest.count == 0) nest.count = 1;

  bool vectors = lanes > 1 && size[0] % lanes == 0;
  for (int k = 0; k < K && vectors; ++k) {
    const TensorView& v = *views[static_cast<std::size_t>(k)];
    const std::int64_t step = nest.stride[k][0];
    const bool consecutive =
        step == 1 &&
        reinterpret_cast<std::uintptr_t>(v.data) % (static_cast<std::size_t>(lanes) * size_of(v.dtype)) == 0;
    vectors = consecutive || (k > 0 && step == 0);
    for (int l = 1; l < nest.count; ++l) vectors = vectors && (step == 0 || nest.stride[k][l] % lanes == 0);
  }
  if (!vectors) lanes = 1;
  size[0] /= lanes;
  std::int64_t total = 1;
  for (int l = 0; l < nest.count; ++l) {
    total *= size[static_cast<std::size_t>(l)];
    nest.size[l] = static_cast<unsigned>(size[static_cast<std::size_t>(l)]);
  }
  LIMBECK_CHECK(total < (std::int64_t{1} << 31), "cuda",
                "{} elements in a tensor of shape {}, at most 2^31 are supported", total * lanes, shape);
  nest.total = static_cast<unsigned>(total);
  return nest;
}

}  // namespace limbeck::cuda
