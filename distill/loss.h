// What this is: Loss, the common face of every distillation loss towards the Distiller, and its factory by name.
// What it is not: the arithmetic. Each loss is an op with a file group of its own (pixel_kd, channel_kd, ...); the
//   classes here only hold its options.
// Read next: distill/distiller.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/tensor.h"
#include "nn/module.h"

namespace limbeck::distill {

/// A loss between a student and a teacher map. A module, because some losses own trainable parts.
/// Shapes:   student and teacher [N,C,H,W] of equal shape (the Distiller aligns sizes before); returns a scalar.
/// Gradient: with respect to the student map and the loss's own parameters; the teacher must not require one.
class Loss : public nn::Module {
 public:
  [[nodiscard]] virtual Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor& labels) = 0;
  /// Name and options in force, e.g. "channel_kd tau=4 (sum/(N*C) * tau^2)"; for logs and run.json.
  [[nodiscard]] virtual std::string describe() const = 0;
};

/// Makes the loss that `term` names under the key `loss`, reading its options from the same mapping.
/// Shapes:   not applicable.
/// Throws:   ConfigError naming file and line for an unknown loss (with the list) or an option out of range.
[[nodiscard]] std::shared_ptr<Loss> make_loss(const Config& term);

/// Names that make_loss() knows.
[[nodiscard]] std::vector<std::string> loss_names();

}  // namespace limbeck::distill
