// What this is: what stands in the CUDA column of the kernel tables in a build without CUDA: one throwing function per
//   kernel. (Tables cannot name a function that does not exist, and a build option removes files, never lines.)
#include "ops/batch_norm_kernels.h"
#include "ops/conv2d_kernels.h"
#include "ops/copy_kernels.h"
#include "ops/cross_entropy_kernels.h"
#include "ops/depthwise_kernels.h"
#include "ops/device_conv2d.h"
#include "ops/dropout_kernels.h"
#include "ops/elementwise_kernels.h"
#include "ops/interpolate_kernels.h"
#include "ops/matmul_kernels.h"
#include "ops/pool2d_kernels.h"
#include "ops/reduce_kernels.h"
#include "ops/softmax_kernels.h"

namespace limbeck::ops {
namespace {

using View = const TensorView&;

[[noreturn]] void missing(const char* op) {
  fail<ConfigError>(op, "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace

// elementwise
template <class Op>
void unary_cuda(View, View, const UnaryArgs&) {
  missing(Op::name);
}
template <class Op>
void unary_backward_cuda(View, View, View, const UnaryArgs&) {
  missing(Op::name);
}
template <class Op>
void binary_cuda(View, View, View) {
  missing(Op::name);
}
template <class Op>
void binary_backward_cuda(View, View, View, View, int) {
  missing(Op::name);
}
void add_in_place_cuda(View, View, double) { missing("add_"); }
void scale_cuda(View, View, View) { missing("scale"); }
#define LIMBECK_INSTANTIATE(Op)                               \
  template void unary_cuda<Op>(View, View, const UnaryArgs&); \
  template void unary_backward_cuda<Op>(View, View, View, const UnaryArgs&);
LIMBECK_UNARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE
#define LIMBECK_INSTANTIATE(Op)                    \
  template void binary_cuda<Op>(View, View, View); \
  template void binary_backward_cuda<Op>(View, View, View, View, int);
LIMBECK_BINARY_OPS(LIMBECK_INSTANTIATE)
#undef LIMBECK_INSTANTIATE

// copy
void copy_cuda(View, View) { missing("copy"); }

// reduce
void sum_cuda(View, View, double) { missing("sum"); }
void amax_cuda(View, View) { missing("amax"); }
void amax_backward_cuda(View, View, View, View) { missing("amax_backward"); }
void argmax_cuda(View, View, std::size_t) { missing("argmax"); }

// batch_norm
void batch_norm_moments_cuda(View, View) { missing("batch_norm_moments"); }
void batch_norm_coefficients_cuda(View, View, View, View, double, View) { missing("batch_norm_coefficients"); }
void batch_norm_statistics_cuda(View, const BatchNormRunning&, View, View, double, View) {
  missing("batch_norm_statistics");
}
void batch_norm_apply_cuda(View, View, View, Activation, View) { missing("batch_norm_apply"); }
void batch_norm_sums_cuda(View, View, View, View, Activation, View, View, View, View) { missing("batch_norm_sums"); }
void batch_norm_gradient_cuda(View, View, View, View, Activation, View, double, View) {
  missing("batch_norm_gradient");
}
void batch_norm_mask_cuda(View, View, Activation, View) { missing("batch_norm_mask"); }

// softmax
void softmax_cuda(View, View, const SoftmaxArgs&) { missing("softmax"); }
void softmax_backward_cuda(View, View, View, const SoftmaxArgs&) { missing("softmax_backward"); }

// cross_entropy
void cross_entropy_cuda(View, View, View, View, View, const CrossEntropyArgs&) { missing("cross_entropy"); }

// dropout
void dropout_cuda(View, View, const DropoutArgs&) { missing("dropout"); }

// pool2d
void max_pool_cuda(View, const PoolAxis&, const PoolAxis&, View, View) { missing("max_pool"); }
void max_pool_backward_cuda(View, View, const PoolAxis&, const PoolAxis&, View) { missing("max_pool_backward"); }
void avg_pool_cuda(View, const PoolAxis&, const PoolAxis&, View) { missing("avg_pool"); }
void avg_pool_backward_cuda(View, const PoolAxis&, const PoolAxis&, View) { missing("avg_pool_backward"); }

// interpolate
void resize_bilinear_cuda(View, bool, View) { missing("resize_bilinear"); }
void resize_bilinear_backward_cuda(View, bool, View) { missing("resize_bilinear_backward"); }
void resize_nearest_cuda(View, View) { missing("resize_nearest"); }
void resize_nearest_backward_cuda(View, View) { missing("resize_nearest_backward"); }

// depthwise
void depthwise_forward_cuda(View, View, View, View, Activation, const Conv2dOptions&, View) {
  missing("depthwise_forward");
}
void depthwise_backward_data_cuda(View, View, View, const Conv2dOptions&, View) { missing("depthwise_backward_data"); }
void depthwise_backward_weights_cuda(View, View, const Conv2dOptions&, View) { missing("depthwise_backward_weights"); }

// matmul
void matmul_cuda(View, View, View, View) { missing("matmul"); }

// conv2d
void conv2d_forward_cuda(View, View, View, const Conv2dOptions&, View) { missing("conv2d_forward"); }
void conv2d_backward_data_cuda(View, View, View, const Conv2dOptions&, View) { missing("conv2d_backward_data"); }
void conv2d_backward_weights_cuda(View, View, const Conv2dOptions&, View) { missing("conv2d_backward_weights"); }
void channel_sum_cuda(View, View) { missing("channel_sum"); }
void device_conv2d_cuda(View, View, View, View, Activation, const Conv2dOptions&, View) { missing("device_conv2d"); }

}  // namespace limbeck::ops
