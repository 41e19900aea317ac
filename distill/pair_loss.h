// What this is: the glue that the losses over a student map and a teacher map share once their checks are done: dense
//   copies, the scalar, the gradient, the node.
// What it is not: a check (distill/check_pair.h) or a kernel.
// Read next: distill/attention_kd.cpp, the shortest user.
#pragma once

#include <span>
#include <vector>

#include "core/autograd.h"
#include "core/tensor.h"
#include "ops/fused_loss.h"

namespace limbeck::distill {

/// Node of a loss whose kernel computed the student's gradient together with the value.
struct PairLossNode final : ops::FusedLossNode {
  const char* label = "";
  const char* name() const override { return label; }
};

/// Node of a loss that differentiates several inputs at once; an undefined entry belongs to an input without gradient.
struct MultiLossNode final : Node {
  const char* label = "";
  std::vector<Tensor> gradients;
  const char* name() const override { return label; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const Tensor& g = gradients[i];
      if (!needs_input_grad(i)) continue;
      gx[i] = Tensor::empty_like(g);
      ops::kScaleBy(g.device(), g.dtype(), g.view(), gy[0].view(), gx[i].view());
    }
  }
  void release() override { gradients.clear(); }
};

/// Allocates the value and, if the student is recorded, its gradient; runs `launch`; records the node.
/// `launch(s, t, loss, gradient)` gets dense tensors; `gradient` is undefined when nobody wants it.
/// Shapes:   student, teacher as the kernel takes them; returns []
template <class Launch>
[[nodiscard]] Tensor run_pair_loss(const char* label, const Tensor& student, const Tensor& teacher,
                                   const Launch& launch) {
  const Tensor s = student.dense();
  const Tensor t = teacher.dense();
  Tensor loss = Tensor::empty(Shape{}, ops::loss_dtype(s.dtype()), s.device());
  auto node = record<PairLossNode>({&student});
  const Tensor gradient = node ? Tensor::empty_like(s) : Tensor();
  launch(s, t, loss, gradient);
  if (node) {
    node->label = label;
    node->gradient = gradient;
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::distill
