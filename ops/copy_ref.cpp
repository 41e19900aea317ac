// Reference copy: one element after another in logical order, converting as core/convert.h says.
#include "core/convert.h"
#include "ops/copy_kernels.h"

namespace limbeck::ops {
namespace {

std::int64_t offset_of(const TensorView& v, std::int64_t index) {
  std::int64_t offset = 0;
  for (std::size_t d = v.shape.size(); d-- > 0;) {
    offset += index % v.shape[d] * v.strides[d];
    index /= v.shape[d];
  }
  return offset;
}

}  // namespace

void copy_ref(const TensorView& source, const TensorView& destination) {
  visit_dtype(source.dtype, [&](auto from) {
    visit_dtype(destination.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      for (std::int64_t i = 0; i < destination.numel(); ++i) {
        destination.ptr<To>()[offset_of(destination, i)] = convert<To>(source.ptr<From>()[offset_of(source, i)]);
      }
    });
  });
}

}  // namespace limbeck::ops
