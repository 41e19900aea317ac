// What this is: kernel signatures and tables of conv2d. The same kernels serve conv_transpose2d, whose forward is the
//   data gradient and whose data gradient is the forward.
// Note [weights of a kernel call]
//   x, y, gx, gy have one type (f32, bf16; f64 in the reference). w, gw, bias and gbias are f32 (f64 with f64).
//   A GPU's kernels also take w in the type of the maps (kernel_weights()).
//   All tensors of the fast kernels are dense in the default layout: pixels outside, channels innermost; the weights
//   are stored as [O][KH][KW][I/G].
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/conv2d.h"

namespace limbeck::ops {

/// y = bias + conv(x, w); bias may be undefined.
/// Shapes:   as conv2d
using Conv2dForwardFn = void(const TensorView& x, const TensorView& w, const TensorView& bias,
                             const Conv2dOptions& options, const TensorView& y);
/// gx = dL/dx, plus bias per channel of x if bias is defined (conv_transpose2d has one).
/// Shapes:   gy [N,O,OH,OW]; w [O,I/G,KH,KW]; bias [I]; gx [N,I,H,W]
using Conv2dBackwardDataFn = void(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                  const Conv2dOptions& options, const TensorView& gx);
/// gw = dL/dw.
/// Shapes:   x [N,I,H,W]; gy [N,O,OH,OW]; gw [O,I/G,KH,KW]
using Conv2dBackwardWeightsFn = void(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                     const TensorView& gw);
/// gbias[c] = sum of gy over images and pixels.
/// Shapes:   gy [N,C,H,W]; gbias [C]
using ChannelSumFn = void(const TensorView& gy, const TensorView& gbias);

void conv2d_forward_ref(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                        const TensorView& y);
void conv2d_forward_cpu(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                        const TensorView& y);
void conv2d_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                         const TensorView& y);
void conv2d_backward_data_ref(const TensorView& gy, const TensorView& w, const TensorView& bias,
                              const Conv2dOptions& options, const TensorView& gx);
void conv2d_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                              const Conv2dOptions& options, const TensorView& gx);
void conv2d_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                               const Conv2dOptions& options, const TensorView& gx);
void conv2d_backward_weights_ref(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                 const TensorView& gw);
void conv2d_backward_weights_cpu(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                 const TensorView& gw);
void conv2d_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                  const TensorView& gw);
void channel_sum_ref(const TensorView& gy, const TensorView& gbias);
void channel_sum_cpu(const TensorView& gy, const TensorView& gbias);
void channel_sum_cuda(const TensorView& gy, const TensorView& gbias);

/// Dense weights as the kernels of their device read them next to maps of that type: on a GPU a convolution of bf16 maps that
/// is not depthwise takes rounded ones, which are kept (core/rounded_copy.h).
/// Shapes:   any
[[nodiscard]] Tensor kernel_weights(const Tensor& w, DType maps);

/// Checks the types of weight and bias and the size of the bias; `outputs` is the number of channels of the result.
/// Shapes:   x [N,I,H,W]; b [outputs] or undefined
/// Throws:   a mismatch; messages begin with [where].
void check_conv_parameters(const char* where, const Tensor& x, const Tensor& w, const Tensor& b, std::int64_t outputs);

inline constexpr KernelTable<Conv2dForwardFn> kConv2dForward{"conv2d", conv2d_forward_ref, conv2d_forward_cpu,
                                                             conv2d_forward_cuda};
inline constexpr KernelTable<Conv2dBackwardDataFn> kConv2dBackwardData{
    "conv2d backward (data)", conv2d_backward_data_ref, conv2d_backward_data_cpu, conv2d_backward_data_cuda};
inline constexpr KernelTable<Conv2dBackwardWeightsFn> kConv2dBackwardWeights{
    "conv2d backward (weights)", conv2d_backward_weights_ref, conv2d_backward_weights_cpu,
    conv2d_backward_weights_cuda};
inline constexpr KernelTable<ChannelSumFn> kChannelSum{"conv2d backward (bias)", channel_sum_ref, channel_sum_cpu,
                                                       channel_sum_cuda};

}  // namespace limbeck::ops
