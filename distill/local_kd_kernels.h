// What this is: kernel signature and table of the local similarity loss.
#pragma once

#include <cstdint>

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::distill {

/// loss = the value of distill/local_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,D,H,W]; loss 0-d
using LocalKdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                       const TensorView& gstudent);

void local_kd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent);
void local_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent);
void local_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent);

inline constexpr KernelTable<LocalKdFn> kLocalKd{"local_kd", local_kd_ref, local_kd_cpu, local_kd_cuda};

/// 1 / number of ordered pairs of neighbours in N maps of H x W; 0 if there are none.
[[nodiscard]] inline double local_kd_factor(std::int64_t n, std::int64_t h, std::int64_t w) noexcept {
  const std::int64_t pairs = 2 * n * (h * (w - 1) + (h - 1) * w + 2 * (h - 1) * (w - 1));
  return pairs > 0 ? 1 / static_cast<double>(pairs) : 0.0;
}

}  // namespace limbeck::distill
