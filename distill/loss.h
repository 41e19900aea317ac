// What this is: Loss, the common face of every distillation loss towards the Distiller, and its factory by name.
// What it is not: the arithmetic. Each loss is an op with a file group of its own (pixel_kd, channel_kd, ...); the
//   classes here only hold its options.
// Read next: distill/distiller.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/tensor.h"
#include "models/model.h"
#include "nn/module.h"

namespace limbeck::distill {

/// What a loss may size its own parts by; given once, before training.
struct LossContext {
  models::TapInfo student;  ///< channels and stride of the student's tap (behind a connector: its output)
  models::TapInfo teacher;
  const models::Model* teacher_model = nullptr;
  std::int64_t classes = 0;
  std::uint64_t seed = 0;  ///< of the initial values of trainable parts
};

/// A tap of the student and the tap of the teacher it is compared with; "logits" is always there.
struct TapPair {
  std::string student;
  std::string teacher;
};

/// What one step offers to a loss.
struct LossInputs {
  Tensor student;         ///< tap [N,C,H,W]
  Tensor teacher;         ///< tap, of equal height and width
  Tensor labels;          ///< [N,h,w] at image size
  Tensor student_logits;  ///< [N,K,h,w], not resized
  Tensor teacher_logits;
  std::int64_t step = 0;
  std::int64_t total_steps = 0;
  std::vector<Tensor> more_student = {};  ///< the maps of Loss::more_taps(), in its order, each at its own size
  std::vector<Tensor> more_teacher = {};
};

/// A loss between a student and a teacher map. A module, because some losses own trainable parts.
/// Shapes:   student and teacher [N,C,H,W] of equal height and width (the Distiller aligns sizes before); channels equal
///           where equal_channels() says so; returns a scalar.
/// Gradient: with respect to the student map and the loss's own parameters; the teacher must not require one.
class Loss : public nn::Module {
 public:
  [[nodiscard]] virtual Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor& labels) = 0;
  /// forward() for losses that need more than the two maps.
  [[nodiscard]] virtual Tensor evaluate(const LossInputs& in) { return forward(in.student, in.teacher, in.labels); }
  /// Called once by the Distiller: losses with adapters make them here and register them as children.
  /// Throws: ConfigError when the taps do not suit the loss.
  virtual void connect(const LossContext& /*context*/) {}
  /// False for losses that compare maps of different channel counts (their own adapter, attention, similarities).
  [[nodiscard]] virtual bool equal_channels() const { return true; }
  /// Which map the Distiller resizes unless the configuration says: "larger" (the larger one), "teacher" (the student's map
  /// takes the teacher's size) or "student".
  [[nodiscard]] virtual const char* alignment() const { return "larger"; }
  /// Whether that resize has align_corners, where the loss was published with one way; otherwise the objective's.
  [[nodiscard]] virtual std::optional<bool> align_corners() const { return std::nullopt; }
  /// Taps that the loss reads besides those of its term.
  [[nodiscard]] virtual std::vector<TapPair> more_taps() const { return {}; }
  /// Called once after every optimizer step, outside of autocast: where a loss trains parts that work against the student
  /// (a discriminator). Everything random in it must be a function of the step, everything it remembers a buffer, so that
  /// a resumed run repeats bit for bit.
  virtual void after_step(std::int64_t /*step*/, std::int64_t /*total_steps*/) {}
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
