// What this is: kernel signature and table of the pair-wise similarity loss.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/pairwise_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/pairwise_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,D,H,W]; loss 0-d
using PairwiseKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                          const TensorView& gstudent, const PairwiseKdOptions& options);

void pairwise_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const PairwiseKdOptions& options);
void pairwise_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const PairwiseKdOptions& options);
void pairwise_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, const PairwiseKdOptions& options);

inline constexpr KernelTable<PairwiseKdFn> kPairwiseKd{"pairwise_kd", pairwise_kd_ref, pairwise_kd_cpu,
                                                       pairwise_kd_cuda};

/// Grid of pooling windows over one map.
struct PairwiseWindows {
  std::int64_t kernel_h = 1, kernel_w = 1, rows = 1, columns = 1;
  PairwiseWindows(std::int64_t h, std::int64_t w, const PairwiseKdOptions& o) {
    const auto size = [&](std::int64_t n) {
      const auto scaled = static_cast<std::int64_t>(o.scale * static_cast<double>(n));
      return std::clamp<std::int64_t>(o.scale > 0 ? scaled : o.kernel, 1, n);
    };
    kernel_h = size(h);
    kernel_w = size(w);
    rows = (h + kernel_h - 1) / kernel_h;
    columns = (w + kernel_w - 1) / kernel_w;
  }
  [[nodiscard]] std::int64_t count() const noexcept { return rows * columns; }
};

/// Added to the length of a feature vector.
inline constexpr double kPairwiseEpsilon = 1e-8;

}  // namespace limbeck::distill
