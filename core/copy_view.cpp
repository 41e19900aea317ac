// copy_view: copies between two views of equal shape, whatever their strides and element types. One routine serves
// layout changes (row-major files <-> channels-last tensors), dtype casts, slices and broadcasting (stride 0).
#include <algorithm>
#include <array>
#include <cstring>

#include "core/convert.h"
#include "core/parallel.h"
#include "core/tensor.h"

namespace limbeck {
namespace {

/// Loop nest after sorting: dimension 0 is the outermost; adjacent dimensions that are contiguous in both are merged.
struct Nest {
  std::size_t count = 0;
  std::array<std::int64_t, kMaxDims> size{}, source{}, destination{};
};

Nest make_nest(const TensorView& source, const TensorView& destination) {
  std::array<std::size_t, kMaxDims> order{};
  std::size_t dims = 0;
  for (std::size_t i = 0; i < destination.shape.size(); ++i) {
    if (destination.shape[i] != 1) order[dims++] = i;
  }
  // Largest destination stride outermost: writes run through memory in order.
  sort_by_stride(std::span(order.data(), dims), destination.strides);
  Nest nest;
  for (std::size_t k = 0; k < dims; ++k) {
    const std::size_t i = order[k];
    const std::int64_t n = destination.shape[i];
    const std::int64_t s = source.strides[i];
    const std::int64_t d = destination.strides[i];
    if (nest.count > 0) {
      const std::size_t last = nest.count - 1;
      if (nest.source[last] == s * n && nest.destination[last] == d * n) {
        nest.size[last] *= n;
        nest.source[last] = s;
        nest.destination[last] = d;
        continue;
      }
    }
    nest.size[nest.count] = n;
    nest.source[nest.count] = s;
    nest.destination[nest.count] = d;
    ++nest.count;
  }
  if (nest.count == 0) {  // a single element
    nest.count = 1;
    nest.size[0] = 1;
  }
  return nest;
}

template <class From, class To>
void copy_row(const From* s, std::int64_t ss, To* d, std::int64_t ds, std::int64_t n) noexcept {
  if (ss == 1 && ds == 1) {
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(static_cast<void*>(d), s, static_cast<std::size_t>(n) * sizeof(To));
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) d[i] = convert<To>(s[i]);
    }
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) d[i * ds] = convert<To>(s[i * ss]);
}

template <class From, class To>
void copy_nest(const Nest& nest, const From* source, To* destination) {
  constexpr std::int64_t kGrain = 16384;
  if (nest.count == 1) {
    parallel_for(nest.size[0], kGrain, [&](std::int64_t begin, std::int64_t end) {
      copy_row(source + begin * nest.source[0], nest.source[0], destination + begin * nest.destination[0],
               nest.destination[0], end - begin);
    });
    return;
  }
  const std::size_t inner = nest.count - 1;
  std::int64_t rows = 1;
  for (std::size_t k = 0; k < inner; ++k) rows *= nest.size[k];
  const std::int64_t row_grain = std::max<std::int64_t>(1, kGrain / nest.size[inner]);
  parallel_for(rows, row_grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row;
      std::int64_t s = 0;
      std::int64_t d = 0;
      for (std::size_t k = inner; k-- > 0;) {
        const std::int64_t i = rest % nest.size[k];
        rest /= nest.size[k];
        s += i * nest.source[k];
        d += i * nest.destination[k];
      }
      copy_row(source + s, nest.source[inner], destination + d, nest.destination[inner], nest.size[inner]);
    }
  });
}

}  // namespace

void copy_view(const TensorView& source, const TensorView& destination) {
  LIMBECK_CHECK(source.shape == destination.shape, "copy_view", "shapes {} and {} differ", source.shape,
                destination.shape);
  if (destination.numel() == 0) return;
  const Nest nest = make_nest(source, destination);
  visit_dtype(source.dtype, [&](auto from) {
    visit_dtype(destination.dtype,
                [&](auto to) { copy_nest(nest, source.ptr<decltype(from)>(), destination.ptr<decltype(to)>()); });
  });
}

}  // namespace limbeck
