// Reference copy: one element after another in logical order, converting as a C++ cast does (bf16 by way of float).
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

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bfloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else {
    return static_cast<To>(value);
  }
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
