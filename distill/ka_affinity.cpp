// Glue of the affinity loss.
#include "distill/ka_affinity.h"

#include "distill/check_pair.h"
#include "distill/ka_affinity_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

std::string_view name_of(KaAffinityReduce reduce) {
  switch (reduce) {
    case KaAffinityReduce::kMeanSquare: return "mean_square";
    case KaAffinityReduce::kRowNorm: return "rownorm";
    case KaAffinityReduce::kTdl: return "tdl";
  }
  return "?";
}

Tensor ka_affinity(const Tensor& student, const Tensor& teacher, const KaAffinityOptions& options) {
  constexpr const char* kLoss = "ka_affinity";
  check_positions(kLoss, student, teacher);
  LIMBECK_CHECK(
      options.reduce != KaAffinityReduce::kTdl || student.size(1) == teacher.size(1), kLoss,
      "student with {} channels, teacher with {}, expected as many for reduce = tdl, which compares channel by "
      "channel; use mean_square or an adapter",
      student.size(1), teacher.size(1));
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kKaAffinity(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), options);
                       });
}

}  // namespace limbeck::distill
