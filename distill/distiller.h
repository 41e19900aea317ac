// What this is: Distiller, one training objective made of the task loss and any list of distillation terms between
//   named taps of a frozen teacher and a student. Without a teacher it is plain supervised training: one code path.
// What it is not: the optimizer, the loop or the data; those are in apps/trainer.h.
// Read next: distill/loss.h, models/model.h (taps), apps/trainer.h.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "distill/loss.h"
#include "distill/weight_schedule.h"
#include "models/frozen_model.h"
#include "models/model.h"
#include "nn/module.h"
#include "ops/cross_entropy.h"

namespace limbeck::distill {

struct TeacherCode;

/// What to do when the two maps of a term differ in height or width.
enum class SizeAlign : std::uint8_t {
  kLarger,   ///< resize the larger map down to the smaller one (bilinear); the default
  kTeacher,  ///< resize the student map to the teacher's size
  kStudent,  ///< resize the teacher map to the student's size
  kImage     ///< resize both to the size of the labels: score maps as AICSD compares them
};

/// One distillation term: weight(step) * loss(connector(student[tap]), teacher[tap]).
struct Term {
  std::string name;  ///< as it appears in logs, e.g. "cwd"
  std::string student_tap = "logits";
  std::string teacher_tap = "logits";
  WeightSchedule weight{1.0};
  std::shared_ptr<Loss> loss;
  std::shared_ptr<nn::UnaryModule> connector;  ///< null: the student map is used as it is
  std::int64_t projection = 0;  ///< 1, 3: the Distiller makes the connector, a convolution of that size without bias
  SizeAlign align = SizeAlign::kLarger;
};

struct ObjectiveOptions {
  ops::CrossEntropyOptions cross_entropy;
  WeightSchedule ce_weight{1.0};
  double aux_weight = 0.4;             ///< of the auxiliary head's cross entropy, where the student has one
  bool align_corners = false;          ///< of every bilinear resize here, unless a loss has its own
  std::uint64_t seed = 0;              ///< of the initial values of trainable parts of losses
  bool whole_images = false;           ///< classification: labels [N], one class per picture, none of them ignored
  bool teacher_in_train_mode = false;  ///< see Note [teacher mode]
  std::int64_t connector_epochs = 0;   ///< see Note [connectors first]
  /// Encoder behind the teacher's tap "code" (distill/teacher_code.h), run once per step for all terms that ask for it.
  std::shared_ptr<TeacherCode> teacher_code = nullptr;
};

/// Value of one term in one step, before and after weighting.
struct TermValue {
  std::string name;
  Tensor raw;          ///< scalar without history; read it when it is needed, not in every step
  double weight = 1;   ///< in force at this step
  std::size_t id = 0;  ///< for weight_of()
};

struct Objective {
  Tensor total;                   ///< sum of weight * raw; differentiable
  PooledVector<TermValue> terms;  ///< "ce" first, then "aux", then the terms in order
};

/// Note [teacher mode]
///   The teacher is in eval mode: its batch norms use the statistics it was trained with, nothing is dropped. The released
///   code of AICSD leaves it in train mode: batch statistics, dropout in its head, running statistics that drift away from
///   the weight file. teacher_in_train_mode repeats that, still without gradients; the drifting statistics then belong to the
///   state of the Distiller ("teacher.*"), or a resumed run would not repeat.

/// Note [connectors first]
///   The released code of overhaul distillation trains the connectors of its terms alone in the first epoch. For
///   connector_epochs epochs the student runs without being recorded: its weights get no gradient and stay, only its batch
///   statistics move; layers of terms, connectors among them, are trained as ever. The cross entropy is shown, not followed.
///   AICSD's code grew out of that one and kept the epoch, although its terms have no layers: together with
///   teacher_in_train_mode that is repeated, otherwise it is an error.

/// Note [one pixel]
///   The logits [N,K] of a classification network are maps of one pixel, its labels [N] are masks of one pixel. Seen like
///   that, the cross entropy, every loss, every weight and every adapter works for both tasks without knowing which.

/// Student + frozen teacher + terms.
/// Shapes:   images [N,3,H,W]; labels [N,H,W] u8 (255: ignored), or i64 [N] with whole_images. Student logits [N,K,h,w] are
///           resized to HxW before the cross entropy; terms see maps at their own size, logits [N,K] as [N,K,1,1].
/// Types:    runs under the caller's AutocastGuard; losses accumulate in f32.
/// Gradient: with respect to the student and to connectors and losses with parameters. The teacher never enters the tape.
/// Throws:   ConfigError for an unknown tap (with the list of taps) or an empty loss; Error when channels differ and the
///           term has no connector, or a teacher parameter requires grad.
/// Source:   KA (CVPR 2019), CWD (ICCV 2021): all four systems are instances of this sum.
class Distiller final : public nn::Module {
 public:
  /// `teacher` may be null; then `terms` must be empty. The teacher is frozen here.
  Distiller(std::shared_ptr<models::Model> student, std::shared_ptr<models::Model> teacher, std::vector<Term> terms,
            ObjectiveOptions options = {});

  [[nodiscard]] std::string type() const override { return "Distiller"; }

  /// The objective for one batch at optimizer step `step` of `total_steps`.
  [[nodiscard]] Objective forward(const Tensor& images, const Tensor& labels, std::int64_t step,
                                  std::int64_t total_steps);

  /// Optimizer steps in one pass over the data, for weights that change by epochs; a fraction where batches are accumulated.
  /// Without it such weights are an error.
  void set_steps_per_epoch(double steps);

  /// Steps of equal phase do the same work, with other weights: the terms that count and what is trained.
  [[nodiscard]] std::string phase(std::int64_t step, std::int64_t total_steps) const;
  /// The weight of an Objective's term at any step.
  [[nodiscard]] double weight_of(std::size_t id, std::int64_t step, std::int64_t total_steps) const;

  /// To be called once after every optimizer step: lets losses train their own parts (see Loss::after_step).
  void after_step(std::int64_t step, std::int64_t total_steps);

  [[nodiscard]] models::Model& student() noexcept { return *student_; }
  [[nodiscard]] models::Model* teacher() noexcept { return teacher_.get(); }
  [[nodiscard]] const std::vector<Term>& terms() const noexcept { return terms_; }
  /// One line per term with its effective weight and reduction; stored in run.json.
  [[nodiscard]] std::vector<std::string> describe() const;

 private:
  [[nodiscard]] Tensor term_value(std::size_t index, const models::Output& student, const models::Output& teacher,
                                  const Tensor& labels, std::int64_t step, std::int64_t total_steps);
  /// Brings the maps of a term to one size; says so once.
  void align_sizes(std::size_t index, const Tensor& labels, Tensor& student, Tensor& teacher);
  /// See Note [connectors first].
  [[nodiscard]] bool trains_connectors_only(std::int64_t step, std::int64_t total_steps) const;
  void check_connector_epochs() const;
  [[nodiscard]] double weight_at(const WeightSchedule& weight, std::int64_t step, std::int64_t total_steps) const;
  /// raw times the weight of the term; in a recording the weight is a number on the device, where it changes by step.
  [[nodiscard]] Tensor weighted(const Tensor& raw, std::size_t id, std::int64_t step, std::int64_t total_steps) const;
  [[nodiscard]] LossContext context_of(std::size_t index) const;
  void set_teacher_mode();
  void add_projection(std::size_t index);
  void check_channels(std::size_t index) const;
  void add_teacher_tap(const std::string& tap, std::size_t term);
  [[nodiscard]] models::Output run_teacher(const Tensor& images, bool with_code);

  std::shared_ptr<models::Model> student_;
  std::shared_ptr<models::Model> teacher_;
  std::unique_ptr<nn::Module> teacher_state_;  // only in train mode: its buffers
  std::vector<Term> terms_;
  ObjectiveOptions options_;
  std::vector<std::string> student_taps_;  // without "logits", which is always there
  std::vector<std::string> teacher_taps_;
  std::optional<models::FrozenModel> frozen_teacher_;  // its fast way, in eval mode
  std::vector<bool> reads_code_;                       // by term
  std::vector<bool> alignment_logged_;
  double steps_per_epoch_ = 0;
};

}  // namespace limbeck::distill
