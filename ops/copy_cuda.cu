// The copy of the GPU lives in core, because tensors need it before there is any op.
#include "core/cuda.h"
#include "core/cuda/runtime.h"
#include "ops/copy_kernels.h"

namespace limbeck::ops {

void copy_cuda(const TensorView& source, const TensorView& destination) {
  cuda::copy_view(cuda::current_device(), source, destination);
}

}  // namespace limbeck::ops
