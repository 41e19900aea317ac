// Glue of the similarity-preserving loss: checks; maps become rows.
#include "distill/batch_similarity_kd.h"

#include "distill/batch_similarity_kd_kernels.h"
#include "distill/check_pair.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

/// A dense tensor as [N, rest], elements of a sample in memory order.
TensorView rows_of(const Tensor& t) {
  TensorView v = t.view();
  if (!t.defined()) return v;
  const std::int64_t n = t.size(0);
  v.shape = Shape{n, t.numel() / n};
  v.strides = row_major_strides(v.shape);
  return v;
}

}  // namespace

Tensor batch_similarity_kd(const Tensor& student, const Tensor& teacher) {
  constexpr const char* kLoss = "batch_similarity_kd";
  check_pair_kinds(kLoss, student, teacher);
  LIMBECK_CHECK(student.ndim() >= 2 && teacher.ndim() >= 2 && student.size(0) == teacher.size(0), kLoss,
                "student of shape {}, teacher of shape {}, expected the same number of samples", student.shape(),
                teacher.shape());
  return run_pair_loss(
      kLoss, student, teacher, [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
        kBatchSimilarityKd(s.device(), s.dtype(), rows_of(s), rows_of(t), loss.view(), rows_of(gradient));
      });
}

}  // namespace limbeck::distill
