// What this is: kernel signature and table of the pixel-wise distillation loss. Views are always maps: the glue
//   presents [N,C] as [N,C,1,1].
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/pixel_kd.h"

namespace limbeck::distill {

/// loss = the reduced divergence of distill/pixel_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent [N,C,H,W]; labels [N,H,W] or undefined; loss 0-d
using PixelKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                       const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options);

void pixel_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                  const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options);
void pixel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                  const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options);
void pixel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                   const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options);

inline constexpr KernelTable<PixelKdFn> kPixelKd{"pixel_kd", pixel_kd_ref, pixel_kd_cpu, pixel_kd_cuda};

/// What the sum over pixels is multiplied by.
/// Shapes:   student [N,C,H,W]; `valid` of its pixels count
[[nodiscard]] inline double pixel_kd_factor(const TensorView& student, std::int64_t valid,
                                            const PixelKdOptions& options) {
  if (valid == 0) return 0;
  const double tau2 = options.tau * options.tau;
  const auto n = static_cast<double>(student.n());
  const auto pixels = static_cast<double>(student.h() * student.w());
  switch (options.reduction) {
    case PixelKdReduction::kMeanAll: return 1 / (n * static_cast<double>(student.c()) * pixels);
    case PixelKdReduction::kPerPixel: return tau2 / static_cast<double>(valid);
    case PixelKdReduction::kBatchMean: return tau2 / n;
    case PixelKdReduction::kSkdCrossEntropy: return 1 / pixels;
  }
  return 0;
}

}  // namespace limbeck::distill
