// What this is: kernel signature and table of the adaptation loss.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/ka_adapt.h"

namespace limbeck::distill {

/// loss = the value of distill/ka_adapt.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, teacher, gstudent [N,C,H,W]; loss 0-d
using KaAdaptFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                       const TensorView& gstudent, const KaAdaptOptions& options);

void ka_adapt_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent, const KaAdaptOptions& options);
void ka_adapt_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent, const KaAdaptOptions& options);
void ka_adapt_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent, const KaAdaptOptions& options);

inline constexpr KernelTable<KaAdaptFn> kKaAdapt{"ka_adapt", ka_adapt_ref, ka_adapt_cpu, ka_adapt_cuda};

/// Added to the norms that the vectors are divided by.
inline constexpr double kKaEpsilon = 1e-12;

[[nodiscard]] inline std::int64_t ka_vector_count(const TensorView& map, KaScope scope) {
  return scope == KaScope::kImage ? map.n() : map.n() * map.h() * map.w();
}

/// 1 / count of the formula.
[[nodiscard]] inline double ka_adapt_factor(const TensorView& map, const KaAdaptOptions& o) {
  if (o.reduction == KaReduction::kSum) return 1;
  const bool all = o.reduction == KaReduction::kMean && o.scope == KaScope::kImage && o.p == 1;
  return 1 / static_cast<double>(all ? map.numel() : ka_vector_count(map, o.scope));
}

}  // namespace limbeck::distill
