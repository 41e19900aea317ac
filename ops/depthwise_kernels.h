// What this is: kernel signatures and tables of the depthwise convolution. Types and layouts as in
//   ops/conv2d_kernels.h, except that the fast kernels take the weights as [C,1,KH,KW] and reorder them to [KH][KW][C].
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"

namespace limbeck::ops {

/// y = act(bias + conv(x, w) + residual); bias and residual may be undefined.
/// Shapes:   x [N,C,H,W]; w [C,1,KH,KW]; bias [C]; residual, y [N,C,OH,OW]
using DepthwiseForwardFn = void(const TensorView& x, const TensorView& w, const TensorView& bias,
                                const TensorView& residual, Activation act, const Conv2dOptions& options,
                                const TensorView& y);
/// gx = dL/dx, plus bias per channel if bias is defined (conv_transpose2d has one).
/// Shapes:   gy [N,C,OH,OW]; w [C,1,KH,KW]; bias [C]; gx [N,C,H,W]
using DepthwiseBackwardDataFn = void(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                     const Conv2dOptions& options, const TensorView& gx);
/// gw = dL/dw.
/// Shapes:   x [N,C,H,W]; gy [N,C,OH,OW]; gw [C,1,KH,KW]
using DepthwiseBackwardWeightsFn = void(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                        const TensorView& gw);

void depthwise_forward_ref(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                           Activation act, const Conv2dOptions& options, const TensorView& y);
void depthwise_forward_cpu(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                           Activation act, const Conv2dOptions& options, const TensorView& y);
void depthwise_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias,
                            const TensorView& residual, Activation act, const Conv2dOptions& options,
                            const TensorView& y);
void depthwise_backward_data_ref(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                 const Conv2dOptions& options, const TensorView& gx);
void depthwise_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                 const Conv2dOptions& options, const TensorView& gx);
void depthwise_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                                  const Conv2dOptions& options, const TensorView& gx);
void depthwise_backward_weights_ref(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                    const TensorView& gw);
void depthwise_backward_weights_cpu(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                    const TensorView& gw);
void depthwise_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                     const TensorView& gw);

inline constexpr KernelTable<DepthwiseForwardFn> kDepthwiseForward{"depthwise_conv2d", depthwise_forward_ref,
                                                                   depthwise_forward_cpu, depthwise_forward_cuda};
inline constexpr KernelTable<DepthwiseBackwardDataFn> kDepthwiseBackwardData{
    "depthwise_conv2d backward (data)", depthwise_backward_data_ref, depthwise_backward_data_cpu,
    depthwise_backward_data_cuda};
inline constexpr KernelTable<DepthwiseBackwardWeightsFn> kDepthwiseBackwardWeights{
    "depthwise_conv2d backward (weights)", depthwise_backward_weights_ref, depthwise_backward_weights_cpu,
    depthwise_backward_weights_cuda};

// --- for packed convolutions ----------------------------------------------------------------------------------------

/// Which rows of whole maps a pair of views holds.
/// Shapes:   none
struct DepthwiseRows {
  std::int64_t x_first = 0;   ///< row of the input map that is row 0 of the view x
  std::int64_t x_height = 0;  ///< rows of the input map; what lies beyond is zero
  std::int64_t y_first = 0;
};

/// Numbers that depthwise_pack() writes.
/// Shapes:   w [C,1,KH,KW]; packed f32 [KH,KW,C]
void depthwise_pack(const TensorView& w, float* packed);
/// Some rows of the forward pass; the view x holds all rows that they read.
/// Shapes:   x [N,C,h,W]; w is the shape of the weights; residual, y [N,C,oh,OW]
void depthwise_rows(const TensorView& x, const float* packed, const Shape& w, const TensorView& bias,
                    const TensorView& residual, Activation act, const Conv2dOptions& options, const DepthwiseRows& rows,
                    const TensorView& y);

}  // namespace limbeck::ops
