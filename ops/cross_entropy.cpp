// Glue of the cross entropy: checks, dispatch, node.
#include "ops/cross_entropy.h"

#include "ops/copy.h"
#include "ops/cross_entropy_kernels.h"
#include "ops/fused_loss.h"
#include "ops/map_view.h"

namespace limbeck::ops {
namespace {

constexpr const char* kOp = "cross_entropy";

struct CrossEntropyNode final : FusedLossNode {
  const char* name() const override { return kOp; }
};

void check(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  check_float(kOp, logits);
  LIMBECK_CHECK(labels.defined(), kOp, "the labels are undefined");
  LIMBECK_CHECK(labels.dtype() == DType::kU8 || labels.dtype() == DType::kI32 || labels.dtype() == DType::kI64, kOp,
                "labels of type {}, expected u8, i32 or i64", name_of(labels.dtype()));
  const Shape& s = logits.shape();
  LIMBECK_CHECK(s.size() == 4 || s.size() == 2, kOp, "logits of shape {}, expected [N,K,H,W] or [N,K]", s);
  LIMBECK_CHECK(s[1] > 0, kOp, "logits of shape {} have no class", s);
  const Shape wanted = s.size() == 4 ? Shape{s[0], s[2], s[3]} : Shape{s[0]};
  LIMBECK_CHECK(labels.shape() == wanted, kOp,
                "labels of shape {}, expected {} for logits of shape {}; resize the logits to the labels first",
                labels.shape(), wanted, s);
  LIMBECK_CHECK(labels.device() == logits.device(), kOp, "labels on {}, logits on {}", labels.device().to_string(),
                logits.device().to_string());
  LIMBECK_CHECK(options.label_smoothing >= 0 && options.label_smoothing <= 1, kOp,
                "label_smoothing {}, expected a number in [0, 1]", options.label_smoothing);
  const Tensor& weights = options.class_weights;
  if (!weights.defined()) return;
  LIMBECK_CHECK(weights.shape() == Shape{s[1]}, kOp, "class_weights of shape {}, expected {} (one per class)",
                weights.shape(), Shape{s[1]});
  LIMBECK_CHECK(!weights.requires_grad(), kOp, "class_weights require grad; there is no gradient with respect to them");
  if (!weights.device().is_cpu()) return;
  const auto values = weights.to_vector<double>();
  for (std::size_t k = 0; k < values.size(); ++k) {
    LIMBECK_CHECK(values[k] >= 0 && values[k] < 1e30, kOp, "weight of class {} is {}, expected a finite number >= 0", k,
                  values[k]);
  }
}

}  // namespace

void fail_label(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t label, std::int64_t classes,
                std::int64_t ignore_index) {
  fail<DataError>(
      kOp,
      "pixel (n={}, h={}, w={}) has label {}, expected 0..{} ({} classes) or {} (ignored); map the labels to "
      "train ids, or check the number of classes",
      n, h, w, label, classes - 1, classes, ignore_index);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  check(logits, labels, options);
  const Tensor x = logits.dense();
  const Tensor y = labels.dense();
  const DType wide = loss_dtype(x.dtype());
  const Tensor& given = options.class_weights;
  const Tensor weights = given.defined() && (given.dtype() != wide || !given.is_dense()) ? given.copy_as(wide) : given;

  Tensor loss = Tensor::empty(Shape{}, wide, x.device());
  auto node = record<CrossEntropyNode>({&logits});
  const Tensor gradient = node ? Tensor::empty_like(x) : Tensor();
  kCrossEntropy(x.device(), x.dtype(), as_map(x.view()), as_label_map(y.view()), weights.view(), loss.view(),
                as_map(gradient.view()), CrossEntropyArgs{options.ignore_index, options.label_smoothing});
  if (node) {
    node->gradient = gradient;
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::ops
