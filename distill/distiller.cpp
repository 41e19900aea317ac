#include "distill/distiller.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "core/autograd.h"
#include "core/log.h"
#include "core/nearest_word.h"
#include "core/profile.h"
#include "core/rng.h"
#include "core/step_graph.h"
#include "distill/teacher_code.h"
#include "models/connectors.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLogits = "logits";
constexpr std::size_t kCe = 0, kAux = 1, kFirstTerm = 2;  // TermValue::id
constexpr const char* kUnequalChannels =
    "term '{}': student tap '{}' has {} channels, teacher tap '{}' has {}; add a connector (project: 1x1)";
constexpr std::uint64_t kProjectionStream = 0xC0;  // stream 0 fills the layers of the loss

/// Buffers of another module as a module, so that they travel in a state dictionary.
class BufferList final : public nn::Module {
 public:
  explicit BufferList(std::vector<NamedTensor> buffers) : buffers_(std::move(buffers)) {
    for (auto& buffer : buffers_) register_buffer(buffer.name, buffer.tensor);
  }
  [[nodiscard]] std::string type() const override { return "BufferList"; }

 private:
  std::vector<NamedTensor> buffers_;
};

void require_tap(const models::Model& model, const std::string& tap, const char* role, const std::string& term) {
  if (tap == kLogits) return;
  const auto names = model.tap_names();
  if (std::find(names.begin(), names.end(), tap) != names.end()) return;
  const std::string near = nearest_word(tap, names);
  fail<ConfigError>("distiller", "term '{}': the {} has no tap '{}'{}; taps: logits, {}", term, role, tap,
                    near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", "));
}

void add_tap(std::vector<std::string>& taps, const std::string& tap) {
  if (tap != kLogits && std::find(taps.begin(), taps.end(), tap) == taps.end()) taps.push_back(tap);
}

models::TapInfo tap_info_of(const models::Model& model, const std::string& tap) {
  if (tap == kLogits) return {tap, model.spec().classes, 0};
  for (const models::TapInfo& info : model.tap_infos()) {
    if (info.name == tap) return info;
  }
  return {tap, 0, 0};  // a model that does not tell; losses with adapters refuse 0 channels
}

const Tensor& tap_of(const models::Output& output, const std::string& tap) {
  return tap == kLogits ? output.logits : output.taps.at(tap);
}

using Size = std::array<std::int64_t, 2>;

Size size_of_map(const Tensor& x) { return {x.size(2), x.size(3)}; }

/// The size at which a term compares its maps.
Size common_size(SizeAlign align, const Tensor& student, const Tensor& teacher, const Tensor& labels) {
  const Size s = size_of_map(student);
  const Size t = size_of_map(teacher);
  switch (align) {
    case SizeAlign::kTeacher: return t;
    case SizeAlign::kStudent: return s;
    case SizeAlign::kImage: return {labels.size(1), labels.size(2)};
    case SizeAlign::kLarger: break;
  }
  return s[0] * s[1] > t[0] * t[1] ? t : s;
}

/// See Note [one pixel].
models::Output as_maps(models::Output output) {
  for (Tensor* t : {&output.logits, &output.aux}) {
    if (t->defined() && t->ndim() == 2) *t = ops::reshape(*t, {t->size(0), t->size(1), 1, 1});
  }
  return output;
}

}  // namespace

Distiller::Distiller(std::shared_ptr<models::Model> student, std::shared_ptr<models::Model> teacher,
                     std::vector<Term> terms, ObjectiveOptions options)
    : student_(std::move(student)),
      teacher_(std::move(teacher)),
      terms_(std::move(terms)),
      options_(std::move(options)),
      reads_code_(terms_.size(), false),
      alignment_logged_(terms_.size(), false) {
  LIMBECK_CHECK(student_ != nullptr, "distiller", "there is no student");
  if (options_.whole_images) options_.cross_entropy.ignore_index = -1;  // class 255 of 1000 is a class
  register_module("student", *student_);
  if (!teacher_ && !terms_.empty()) {
    fail<ConfigError>("distiller", "{} distillation terms but no teacher", terms_.size());
  }
  if (teacher_) set_teacher_mode();
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    Term& term = terms_[i];
    LIMBECK_CHECK(term.loss != nullptr, "distiller", "term '{}' has no loss", term.name);
    require_tap(*student_, term.student_tap, "student", term.name);
    add_tap(student_taps_, term.student_tap);
    add_teacher_tap(term.teacher_tap, i);
    for (const TapPair& pair : term.loss->more_taps()) {
      require_tap(*student_, pair.student, "student", term.name);
      add_tap(student_taps_, pair.student);
      add_teacher_tap(pair.teacher, i);
    }
    if (term.align == SizeAlign::kImage && options_.whole_images) {
      fail<ConfigError>("distiller",
                        "term '{}': align: image, but these labels are classes of whole pictures and have no size",
                        term.name);
    }
    if (term.projection > 0) add_projection(i);
    term.loss->connect(context_of(i));
    check_channels(i);
    register_module(fmt::format("term{}", i), *term.loss);
    if (term.connector) register_module(fmt::format("connector{}", i), *term.connector);
  }
  check_connector_epochs();
  if (teacher_) frozen_teacher_.emplace(*teacher_, teacher_taps_);
}

// The teacher is deliberately no child: it must not appear among the trained parameters or in checkpoints.
void Distiller::set_teacher_mode() {
  teacher_->freeze();
  if (!options_.teacher_in_train_mode) return;
  log_warn(
      "the teacher runs in train mode, as in released code: batch statistics, dropout, and running statistics that drift "
      "away from its weight file");
  teacher_->unfreeze();  // forward() runs it without recording
  teacher_->train();
  teacher_state_ = std::make_unique<BufferList>(teacher_->named_buffers());
  register_module("teacher", *teacher_state_);
}

void Distiller::add_projection(std::size_t index) {
  Term& term = terms_[index];
  LIMBECK_CHECK(!term.connector, "distiller", "term '{}' has a connector and wants a projection", term.name);
  const LossContext taps = context_of(index);
  if (taps.student.channels <= 0 || taps.teacher.channels <= 0) {
    fail<ConfigError>("distiller",
                      "term '{}': taps '{}' and '{}' do not tell their channels, which its projection needs", term.name,
                      term.student_tap, term.teacher_tap);
  }
  Generator generator(taps.seed, kProjectionStream);
  term.connector = std::make_shared<models::Connector>(
      models::ConnectorArgs{.in = taps.student.channels, .out = taps.teacher.channels, .kernel = term.projection},
      generator);
}

/// Finds before the first step what forward() would find in it, as far as the networks tell their channels.
void Distiller::check_channels(std::size_t index) const {
  const Term& term = terms_[index];
  if (term.connector || !term.loss->equal_channels()) return;
  const LossContext context = context_of(index);
  const auto told = [](const models::Model& model, const models::TapInfo& tap) {
    return tap.channels > 0 && (tap.name != kLogits || !model.spec().name.empty());
  };
  if (!told(*student_, context.student) || !told(*teacher_, context.teacher)) return;
  if (context.student.channels == context.teacher.channels) return;
  fail<ConfigError>("distiller", kUnequalChannels, term.name, term.student_tap, context.student.channels,
                    term.teacher_tap, context.teacher.channels);
}

void Distiller::check_connector_epochs() const {
  if (options_.connector_epochs == 0) return;
  // A discriminator is no layer of this kind: its loss trains it, not the objective.
  const auto trains = [](const nn::Module& module) {
    const auto parameters = module.parameters();
    return std::any_of(parameters.begin(), parameters.end(), [](const Tensor& p) { return p.requires_grad(); });
  };
  if (std::any_of(terms_.begin(), terms_.end(),
                  [&](const Term& t) { return trains(*t.loss) || (t.connector && trains(*t.connector)); }))
    return;
  if (options_.teacher_in_train_mode) {
    log_warn(
        "connector_epochs is {}, but no term has layers of its own: as in released code, nothing is trained in them, only "
        "batch statistics move",
        options_.connector_epochs);
    return;
  }
  fail<ConfigError>("distiller", "connector_epochs is {}, but no term has layers of its own to train in them",
                    options_.connector_epochs);
}

bool Distiller::trains_connectors_only(std::int64_t step, std::int64_t total_steps) const {
  if (options_.connector_epochs == 0) return false;
  LIMBECK_CHECK(steps_per_epoch_ > 0, "distiller",
                "connector_epochs is {}, but the length of an epoch is not known; call set_steps_per_epoch()",
                options_.connector_epochs);
  const auto end =
      static_cast<std::int64_t>(std::ceil(static_cast<double>(options_.connector_epochs) * steps_per_epoch_ - 1e-9));
  if (end >= total_steps) {
    fail<ConfigError>("distiller",
                      "connector_epochs is {}: {} steps of {} for the connectors leave none for the student",
                      options_.connector_epochs, end, total_steps);
  }
  return step < end;
}

void Distiller::add_teacher_tap(const std::string& tap, std::size_t index) {
  const std::string& term = terms_[index].name;
  if (tap != kCodeTap) {
    require_tap(*teacher_, tap, "teacher", term);
    add_tap(teacher_taps_, tap);
    return;
  }
  if (!options_.teacher_code) {
    fail<ConfigError>(
        "distiller",
        "term '{}': the teacher's tap 'code' is what an autoencoder makes of its feature; name the autoencoder's "
        "file or run with distill.autoencoder",
        term);
  }
  require_tap(*teacher_, options_.teacher_code->tap, "teacher", term);
  add_tap(teacher_taps_, options_.teacher_code->tap);
  reads_code_[index] = true;
}

LossContext Distiller::context_of(std::size_t index) const {
  const Term& term = terms_[index];
  LossContext context;
  context.student = tap_info_of(*student_, term.student_tap);
  context.teacher = term.teacher_tap == kCodeTap
                        ? options_.teacher_code->info(tap_info_of(*teacher_, options_.teacher_code->tap))
                        : tap_info_of(*teacher_, term.teacher_tap);
  if (term.projection > 0 && term.connector) context.student.channels = context.teacher.channels;
  context.teacher_model = teacher_.get();
  context.classes = student_->spec().classes;
  context.seed = mix_stream(options_.seed, index);
  return context;
}

void Distiller::set_steps_per_epoch(double steps) {
  LIMBECK_CHECK(steps > 0, "distiller", "{} steps per epoch, expected a positive number", steps);
  steps_per_epoch_ = steps;
}

double Distiller::weight_at(const WeightSchedule& weight, std::int64_t step, std::int64_t total_steps) const {
  LIMBECK_CHECK(!weight.needs_epochs() || steps_per_epoch_ > 0, "distiller",
                "a weight changes by epochs ({}), but the length of an epoch is not known; call set_steps_per_epoch()",
                weight.describe());
  return weight.at(step, total_steps, steps_per_epoch_);
}

std::string Distiller::phase(std::int64_t step, std::int64_t total_steps) const {
  std::string text = trains_connectors_only(step, total_steps) ? "connectors " : "";
  for (const Term& term : terms_) text += weight_at(term.weight, step, total_steps) > 0 ? '1' : '0';
  return text;
}

double Distiller::weight_of(std::size_t id, std::int64_t step, std::int64_t total_steps) const {
  if (id >= kFirstTerm) return weight_at(terms_[id - kFirstTerm].weight, step, total_steps);
  return weight_at(options_.ce_weight, step, total_steps) * (id == kAux ? options_.aux_weight : 1.0);
}

Tensor Distiller::weighted(const Tensor& raw, std::size_t id, std::int64_t step, std::int64_t total_steps) const {
  const WeightSchedule& schedule = id >= kFirstTerm ? terms_[id - kFirstTerm].weight : options_.ce_weight;
  StepGraph* graph = schedule.is_constant() ? nullptr : StepGraph::current();
  if (graph != nullptr) {
    return ops::mul(raw,
                    graph->number([this, id, total_steps](std::int64_t at) { return weight_of(id, at, total_steps); }));
  }
  const double weight = weight_of(id, step, total_steps);
  return weight == 1.0 ? raw : ops::mul_scalar(raw, weight);
}

models::Output Distiller::run_teacher(const Tensor& images, bool with_code) {
  const NoGradGuard off;
  const ProfileRange range("teacher");
  models::Output output = as_maps((*frozen_teacher_)(images));
  if (with_code) {
    TeacherCode& code = *options_.teacher_code;
    output.taps[kCodeTap] = (*code.encoder)(tap_of(output, code.tap));
  }
  return output;
}

Objective Distiller::forward(const Tensor& images, const Tensor& given, std::int64_t step, std::int64_t total_steps) {
  const Tensor labels = options_.whole_images ? ops::reshape(given, {given.size(0), 1, 1}) : given;
  models::Output teacher;
  bool need_teacher = false;
  bool need_code = false;
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    const bool counts = weight_at(terms_[i].weight, step, total_steps) > 0;
    need_teacher = need_teacher || counts;
    need_code = need_code || (counts && reads_code_[i]);
  }
  if (need_teacher) teacher = run_teacher(images, need_code);
  const models::Output student = [&] {
    std::optional<NoGradGuard> off;
    if (trains_connectors_only(step, total_steps)) off.emplace();
    const ProfileRange range("student");
    return as_maps(student_->forward(images, student_taps_));
  }();

  Objective objective;
  objective.terms.reserve(terms_.size() + 2);
  const auto add_term = [&](std::string_view name, const Tensor& raw, std::size_t id) {
    objective.terms.push_back({std::string(name), raw.detach(), weight_of(id, step, total_steps), id});
    const Tensor part = weighted(raw, id, step, total_steps);
    objective.total = objective.total.defined() ? ops::add(objective.total, part) : part;
  };

  const auto cross_entropy = [&](const Tensor& logits) {
    const Tensor full = ops::resize_bilinear(logits, {labels.size(1), labels.size(2)}, options_.align_corners);
    return ops::cross_entropy(full, labels, options_.cross_entropy);
  };
  add_term("ce", cross_entropy(student.logits), kCe);
  if (student.aux.defined() && options_.aux_weight > 0) add_term("aux", cross_entropy(student.aux), kAux);
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    if (weight_at(terms_[i].weight, step, total_steps) <= 0) continue;
    add_term(terms_[i].name, term_value(i, student, teacher, labels, step, total_steps), kFirstTerm + i);
  }
  return objective;
}

Tensor Distiller::term_value(std::size_t index, const models::Output& student, const models::Output& teacher,
                             const Tensor& labels, std::int64_t step, std::int64_t total_steps) {
  const Term& term = terms_[index];
  Tensor s = tap_of(student, term.student_tap);
  Tensor t = tap_of(teacher, term.teacher_tap);
  if (term.connector) s = (*term.connector)(s);
  LIMBECK_CHECK(s.ndim() == 4 && t.ndim() == 4, "distiller", "term '{}': taps of shapes {} and {}, expected 4-D maps",
                term.name, s.shape(), t.shape());
  align_sizes(index, labels, s, t);
  LIMBECK_CHECK(s.size(1) == t.size(1) || !term.loss->equal_channels(), "distiller", kUnequalChannels, term.name,
                term.student_tap, s.size(1), term.teacher_tap, t.size(1));
  LossInputs inputs{s, t, labels, student.logits, teacher.logits, step, total_steps};
  for (const TapPair& pair : term.loss->more_taps()) {
    inputs.more_student.push_back(tap_of(student, pair.student));
    inputs.more_teacher.push_back(tap_of(teacher, pair.teacher));
  }
  return term.loss->evaluate(inputs);
}

void Distiller::align_sizes(std::size_t index, const Tensor& labels, Tensor& student, Tensor& teacher) {
  const Term& term = terms_[index];
  const Size size = common_size(term.align, student, teacher, labels);
  const bool resize_student = size_of_map(student) != size;
  const bool resize_teacher = size_of_map(teacher) != size;
  if (!resize_student && !resize_teacher) return;
  if (!alignment_logged_[index]) {
    alignment_logged_[index] = true;
    const std::string what = resize_student && resize_teacher
                                 ? fmt::format("both maps are resized to {}x{}", size[0], size[1])
                                 : fmt::format("the {} map is resized", resize_student ? "student" : "teacher");
    log_info("term '{}': student map {}x{}, teacher map {}x{}; {} (bilinear)", term.name, student.size(2),
             student.size(3), teacher.size(2), teacher.size(3), what);
  }
  const bool align_corners = term.loss->align_corners().value_or(options_.align_corners);
  if (resize_student) student = ops::resize_bilinear(student, size, align_corners);
  const NoGradGuard off;
  if (resize_teacher) teacher = ops::resize_bilinear(teacher, size, align_corners);
}

void Distiller::after_step(std::int64_t step, std::int64_t total_steps) {
  for (const Term& term : terms_) term.loss->after_step(step, total_steps);
}

std::vector<std::string> Distiller::describe() const {
  std::vector<std::string> lines;
  if (options_.whole_images) {
    lines.push_back(fmt::format("ce: weight {}, mean over pictures", options_.ce_weight.describe()));
  } else {
    lines.push_back(fmt::format("ce: weight {}, mean over labelled pixels, logits resized bilinearly, align_corners={}",
                                options_.ce_weight.describe(), options_.align_corners));
  }
  if (std::find(reads_code_.begin(), reads_code_.end(), true) != reads_code_.end()) {
    const TeacherCode& code = *options_.teacher_code;
    lines.push_back(fmt::format("code: {} channels, frozen encoder of {} on teacher '{}'",
                                code.encoder->options().code_channels(), code.file, code.tap));
  }
  if (teacher_state_) lines.emplace_back("teacher: in train mode (released-code variant)");
  if (options_.connector_epochs > 0) {
    lines.push_back(fmt::format("connectors: trained alone until the end of epoch {}; the student's weights rest",
                                options_.connector_epochs));
  }
  for (const Term& term : terms_) {
    const std::string through =
        term.projection > 0 ? fmt::format(" through conv{0}x{0}", term.projection) : std::string();
    lines.push_back(fmt::format("{}: weight {}, {}, student '{}'{} <- teacher '{}'{}", term.name,
                                term.weight.describe(), term.loss->describe(), term.student_tap, through,
                                term.teacher_tap,
                                term.align == SizeAlign::kImage ? ", both at the size of the image" : ""));
  }
  return lines;
}

}  // namespace limbeck::distill
