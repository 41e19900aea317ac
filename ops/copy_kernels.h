// What this is: the one kernel that moves elements. cast, clone, reshape, concat, slice and pad2d are all this copy
//   between suitable views, so a device needs to supply only this one.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// destination = source, converting the element type; any strides, stride 0 repeats.
/// Shapes:   equal
using CopyFn = void(const TensorView& source, const TensorView& destination);

void copy_ref(const TensorView& source, const TensorView& destination);
void copy_cpu(const TensorView& source, const TensorView& destination);
void copy_cuda(const TensorView& source, const TensorView& destination);

inline constexpr KernelTable<CopyFn> kCopy{"copy", copy_ref, copy_cpu, copy_cuda};

}  // namespace limbeck::ops
