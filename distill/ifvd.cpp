// Glue of the intra-class variation loss.
#include "distill/ifvd.h"

#include "distill/check_pair.h"
#include "distill/ifvd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor ifvd(const Tensor& student, const Tensor& teacher, const Tensor& labels, const IfvdOptions& options) {
  constexpr const char* kLoss = "ifvd";
  check_positions(kLoss, student, teacher);
  LIMBECK_CHECK(labels.defined(), kLoss, "no labels, expected [N,H,W]");
  const Shape wanted{student.size(0), student.size(2), student.size(3)};
  LIMBECK_CHECK(labels.shape() == wanted, kLoss,
                "labels of shape {}, expected {}; resize the labels (nearest) to the maps", labels.shape(), wanted);
  LIMBECK_CHECK(labels.dtype() == DType::kU8 || labels.dtype() == DType::kI32 || labels.dtype() == DType::kI64, kLoss,
                "labels of type {}, expected u8, i32 or i64", name_of(labels.dtype()));
  LIMBECK_CHECK(labels.device() == student.device(), kLoss, "labels on {}, student on {}", labels.device().to_string(),
                student.device().to_string());
  const Tensor y = labels.dense();
  return run_pair_loss(
      kLoss, student, teacher, [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
        kIfvd(s.device(), s.dtype(), s.view(), t.view(), y.view(), loss.view(), gradient.view(), options);
      });
}

}  // namespace limbeck::distill
