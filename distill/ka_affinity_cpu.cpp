// Fast affinity loss: the forms over cosines of positions are distill/position_affinity.h, torchdistill's is
// distill/ka_affinity_tdl_cpu.cpp.
#include "distill/ka_affinity_kernels.h"
#include "distill/position_affinity.h"

namespace limbeck::distill {

void ka_affinity_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const KaAffinityOptions& options) {
  if (options.reduce == KaAffinityReduce::kTdl) return ka_affinity_tdl_cpu(student, teacher, loss, gstudent);
  const AffinityForm form{.epsilon = kAffinityEpsilon, .rownorm = options.reduce == KaAffinityReduce::kRowNorm};
  const double m = static_cast<double>(student.h() * student.w());
  const double rows = static_cast<double>(student.n()) * m;
  const double factor = 1 / (form.rownorm ? rows : rows * m);
  *loss.ptr<float>() = static_cast<float>(factor * affinity_difference(student, teacher, gstudent, form, factor));
}

}  // namespace limbeck::distill
