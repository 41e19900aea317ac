// What this is: kernel signatures and tables of batch norm.
//
//   training forward   moments -> (sum over ranks) -> statistics -> apply
//   eval forward       coefficients -> apply
//   backward           sums -> (sum over ranks) -> gradient
//
// Note [coefficients]
//   After the statistics are known each channel is described by five numbers, the rows of a [5,C] tensor in the type of
//   the parameters. With them the forward is  pre = (x - center) scale + shift.
//   `center` is the mean rounded to that type. A mean of 1000 standard deviations loses 1e-4 of one by the rounding;
//   `residue` = mean - center keeps the lost part and is folded into `shift`, so the fast kernels pay nothing for it.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "ops/activation.h"

namespace limbeck::ops {

/// Rows of the coefficient tensor.
/// Shapes:   none
enum BatchNormRow : std::int64_t { kCenter, kResidue, kInvStd, kScale, kShift, kBatchNormRows };

/// Row 0: mean, row 1: variance divided by N*H*W.
/// Shapes:   x [N,C,H,W] or [N,C]; moments f64 [2,C]
using BatchNormMomentsFn = void(const TensorView& x, const TensorView& moments);
/// The running statistics after a batch: running = running + momentum (batch - running); the variance is first multiplied by
/// `unbias` = M/(M-1). Both views may be undefined.
/// Shapes:   mean, var [C]
struct BatchNormRunning {
  TensorView mean, var;
  double momentum = 0, unbias = 1;
};
/// See Note [coefficients]. gamma and beta may be undefined.
/// Shapes:   mean, var, gamma, beta [C]; coefficients [5,C]
using BatchNormCoefficientsFn = void(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                     const TensorView& beta, double eps, const TensorView& coefficients);
/// Updates the running statistics and computes the coefficients from the moments of a batch.
/// Shapes:   moments f64 [2,C]; gamma, beta [C]; coefficients [5,C]
using BatchNormStatisticsFn = void(const TensorView& moments, const BatchNormRunning& running, const TensorView& gamma,
                                   const TensorView& beta, double eps, const TensorView& coefficients);
/// y = act((x - center) scale + shift + residual); residual may be undefined.
/// Shapes:   x, residual, y [N,C,H,W] or [N,C]; coefficients [5,C]
using BatchNormApplyFn = void(const TensorView& x, const TensorView& residual, const TensorView& coefficients,
                              Activation act, const TensorView& y);
/// Row 0: sum of g, row 1: sum of g xhat, where g = gy act'(pre). The slope of the activation comes from y if y is
/// defined, otherwise from x; `masked`, if it is defined, gets g, and has y defined with it. `gbeta` and `ggamma`, if they are
/// defined, get the rows in their own type.
/// Shapes:   gy, x, y, masked as x; coefficients [5,C]; sums f64 [2,C]; gbeta, ggamma [C]
using BatchNormSumsFn = void(const TensorView& gy, const TensorView& x, const TensorView& y,
                             const TensorView& coefficients, Activation act, const TensorView& masked,
                             const TensorView& sums, const TensorView& gbeta, const TensorView& ggamma);
/// gx = scale (g - (sums[0] + xhat sums[1]) / count), g as above. Without `sums` the statistics were constants and
/// gx = scale g; then x is read only for the slope and may be undefined if y is defined or act is kNone.
/// Shapes:   gy, x, y, gx as x; coefficients [5,C]; sums f64 [2,C]
using BatchNormGradientFn = void(const TensorView& gy, const TensorView& x, const TensorView& y,
                                 const TensorView& coefficients, Activation act, const TensorView& sums, double count,
                                 const TensorView& gx);
/// g = gy act'(y).
/// Shapes:   gy, y, g the same
using BatchNormMaskFn = void(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g);

void batch_norm_moments_ref(const TensorView& x, const TensorView& moments);
void batch_norm_moments_cpu(const TensorView& x, const TensorView& moments);
void batch_norm_moments_cuda(const TensorView& x, const TensorView& moments);
void batch_norm_coefficients_ref(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                 const TensorView& beta, double eps, const TensorView& coefficients);
void batch_norm_coefficients_cuda(const TensorView& mean, const TensorView& var, const TensorView& gamma,
                                  const TensorView& beta, double eps, const TensorView& coefficients);
void batch_norm_statistics_ref(const TensorView& moments, const BatchNormRunning& running, const TensorView& gamma,
                               const TensorView& beta, double eps, const TensorView& coefficients);
void batch_norm_statistics_cuda(const TensorView& moments, const BatchNormRunning& running, const TensorView& gamma,
                                const TensorView& beta, double eps, const TensorView& coefficients);
void batch_norm_apply_ref(const TensorView& x, const TensorView& residual, const TensorView& coefficients,
                          Activation act, const TensorView& y);
void batch_norm_apply_cpu(const TensorView& x, const TensorView& residual, const TensorView& coefficients,
                          Activation act, const TensorView& y);
void batch_norm_apply_cuda(const TensorView& x, const TensorView& residual, const TensorView& coefficients,
                           Activation act, const TensorView& y);
void batch_norm_sums_ref(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& coefficients,
                         Activation act, const TensorView& masked, const TensorView& sums, const TensorView& gbeta,
                         const TensorView& ggamma);
void batch_norm_sums_cpu(const TensorView& gy, const TensorView& x, const TensorView& y, const TensorView& coefficients,
                         Activation act, const TensorView& masked, const TensorView& sums, const TensorView& gbeta,
                         const TensorView& ggamma);
void batch_norm_sums_cuda(const TensorView& gy, const TensorView& x, const TensorView& y,
                          const TensorView& coefficients, Activation act, const TensorView& masked,
                          const TensorView& sums, const TensorView& gbeta, const TensorView& ggamma);
void batch_norm_gradient_ref(const TensorView& gy, const TensorView& x, const TensorView& y,
                             const TensorView& coefficients, Activation act, const TensorView& sums, double count,
                             const TensorView& gx);
void batch_norm_gradient_cpu(const TensorView& gy, const TensorView& x, const TensorView& y,
                             const TensorView& coefficients, Activation act, const TensorView& sums, double count,
                             const TensorView& gx);
void batch_norm_gradient_cuda(const TensorView& gy, const TensorView& x, const TensorView& y,
                              const TensorView& coefficients, Activation act, const TensorView& sums, double count,
                              const TensorView& gx);
void batch_norm_mask_ref(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g);
void batch_norm_mask_cpu(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g);
void batch_norm_mask_cuda(const TensorView& gy, const TensorView& y, Activation act, const TensorView& g);

inline constexpr KernelTable<BatchNormMomentsFn> kBatchNormMoments{"batch_norm", batch_norm_moments_ref,
                                                                   batch_norm_moments_cpu, batch_norm_moments_cuda};
// C numbers in, C numbers out: the plain loop is the fast one.
inline constexpr KernelTable<BatchNormCoefficientsFn> kBatchNormCoefficients{
    "batch_norm", batch_norm_coefficients_ref, batch_norm_coefficients_ref, batch_norm_coefficients_cuda};
inline constexpr KernelTable<BatchNormStatisticsFn> kBatchNormStatistics{
    "batch_norm", batch_norm_statistics_ref, batch_norm_statistics_ref, batch_norm_statistics_cuda};
inline constexpr KernelTable<BatchNormApplyFn> kBatchNormApply{"batch_norm", batch_norm_apply_ref, batch_norm_apply_cpu,
                                                               batch_norm_apply_cuda};
inline constexpr KernelTable<BatchNormSumsFn> kBatchNormSums{"batch_norm", batch_norm_sums_ref, batch_norm_sums_cpu,
                                                             batch_norm_sums_cuda};
inline constexpr KernelTable<BatchNormGradientFn> kBatchNormGradient{"batch_norm", batch_norm_gradient_ref,
                                                                     batch_norm_gradient_cpu, batch_norm_gradient_cuda};
inline constexpr KernelTable<BatchNormMaskFn> kBatchNormMask{"batch_norm", batch_norm_mask_ref, batch_norm_mask_cpu,
                                                             batch_norm_mask_cuda};

}  // namespace limbeck::ops
