// Glue of the adaptation loss.
#include "distill/ka_adapt.h"

#include "distill/check_pair.h"
#include "distill/ka_adapt_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "ka_adapt";

void check_exponent(const char* name, double e) {
  LIMBECK_CHECK(e >= 1 && e <= 100, kLoss, "{} = {}, expected the exponent of a norm in [1, 100]", name, e);
}

}  // namespace

std::string_view name_of(KaScope scope) { return scope == KaScope::kImage ? "image" : "pixel"; }

std::string_view name_of(KaReduction reduction) {
  switch (reduction) {
    case KaReduction::kMean: return "mean";
    case KaReduction::kVectorMean: return "vector_mean";
    case KaReduction::kSum: return "sum";
  }
  return "?";
}

Tensor ka_adapt(const Tensor& student, const Tensor& teacher, const KaAdaptOptions& options) {
  check_pair(kLoss, student, teacher);
  LIMBECK_CHECK(student.ndim() == 4, kLoss, "maps of shape {}, expected [N,C,H,W]", student.shape());
  check_exponent("p", options.p);
  check_exponent("q", options.q);
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         kKaAdapt(s.device(), s.dtype(), s.view(), t.view(), loss.view(), gradient.view(), options);
                       });
}

}  // namespace limbeck::distill
