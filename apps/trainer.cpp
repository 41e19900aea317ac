#include "apps/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/model_io.h"
#include "apps/report.h"
#include "apps/run_dir.h"
#include "apps/signals.h"
#include "apps/statistics.h"
#include "apps/tensorboard.h"
#include "core/autocast.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/rng.h"
#include "datasets/compose.h"
#include "datasets/image_io.h"
#include "nn/checkpoint.h"
#include "nn/clip.h"
#include "nn/layers.h"
#include "nn/schedule.h"
#include "ops/elementwise.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

// Streams of the run's seed; the weights use stream 0 (verb_train.cpp), the loader its own.
constexpr std::uint64_t kDropoutStream = 0xD0;

datasets::LoaderOptions loader_options(const Settings& s) {
  datasets::LoaderOptions o;
  o.batch = s.train.batch;
  o.workers = static_cast<int>(s.data.workers);
  o.seed = s.seed;
  o.transform = s.data.transform;
  return o;
}

nn::ScheduleOptions schedule_options(const TrainSettings& t, std::int64_t total) {
  nn::ScheduleOptions o;
  o.kind = nn::parse_schedule_kind(t.schedule);
  o.base_lr = t.lr;
  o.total_steps = total;
  o.power = t.power;
  o.min_lr = t.min_lr;
  o.milestones = t.milestones;
  o.gamma = t.gamma;
  o.warmup_steps = t.warmup;
  return o;
}

/// Backbone and head, each with and without weight decay on its vectors.
std::unique_ptr<nn::Optimizer> build_optimizer(const TrainSettings& t, const nn::Module& module) {
  std::vector<nn::ParameterGroup> groups(4);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const bool head = i >= 2;
    const bool vectors = i % 2 == 1;
    groups[i].lr_multiplier = head ? t.head_lr : 1.0;
    groups[i].weight_decay = vectors && !t.decay_vectors ? 0.0 : t.weight_decay;
    groups[i].name = fmt::format("{}{}", head ? "head" : "backbone", vectors ? " vectors" : "");
  }
  nn::assign_parameters(groups, module, [](const nn::NamedTensor& p) {
    const bool head = p.name.find("backbone.") == std::string::npos;
    return (head ? 2 : 0) + (nn::is_vector_parameter(p) ? 1 : 0);
  });
  std::erase_if(groups, [](const nn::ParameterGroup& g) { return g.params.empty(); });
  nn::OptimizerOptions options;
  options.name = t.optimizer;
  options.momentum = t.momentum;
  options.nesterov = t.nesterov;
  return nn::make_optimizer(options, std::move(groups));
}

}  // namespace

struct Trainer::StepResult {
  double loss = 0;
  double lr = 0;
  std::vector<StepLine::Term> terms;      // means over the accumulated batches
  std::vector<std::string> samples;       // names, for the message about a non-finite loss
  double wait_seconds = 0;
};

struct Trainer::Log {
  Log(const fs::path& run, std::int64_t total) : metrics(run / "metrics.jsonl"), board(run), eta(total) {}
  JsonlWriter metrics;
  TensorboardWriter board;
  EtaEstimator eta;
  double window_start = monotonic_seconds();
  double window_wait = 0;
};

Trainer::Trainer(fs::path run, Settings settings, std::shared_ptr<distill::Distiller> distiller,
                 std::shared_ptr<const datasets::Dataset> train, std::shared_ptr<const datasets::Dataset> val,
                 std::string config_text)
    : run_(std::move(run)),
      settings_(std::move(settings)),
      distiller_(std::move(distiller)),
      train_(std::move(train)),
      val_(std::move(val)),
      config_text_(std::move(config_text)),
      loader_(train_, loader_options(settings_)),
      optimizer_(build_optimizer(settings_.train, *distiller_)) {
  const auto& t = settings_.train;
  total_ = t.steps > 0 ? t.steps : std::max<std::int64_t>(1, t.epochs * loader_.batches_per_epoch() / t.accumulate);
  distiller_->set_steps_per_epoch(static_cast<double>(loader_.batches_per_epoch()) / static_cast<double>(t.accumulate));
  if (t.ema > 0) ema_ = std::make_unique<nn::Ema>(distiller_->student(), nn::EmaOptions{.decay = t.ema});
}

std::int64_t Trainer::resume() {
  const auto newest = nn::latest_checkpoint(run_);
  if (!newest) return 0;
  const nn::Checkpoint c = nn::load_checkpoint(*newest);
  distiller_->student().load_state_dict(c.model);
  optimizer_->load_state_dict(c.parts.at("optimizer"));
  const auto objective = c.parts.find("objective");
  if (objective != c.parts.end()) distiller_->load_state_dict(objective->second, {.strict = false});
  if (ema_) {
    const auto average = c.parts.find("ema");
    if (average == c.parts.end()) {
      fail<WeightsError>("resume", "{} has no weight average, but train.ema is {}", newest->string(), settings_.train.ema);
    }
    ema_->load_state_dict(average->second);
  }
  best_miou_ = c.numbers.at("best_miou");
  last_miou_ = c.numbers.at("last_miou");
  first_step_ = c.step;
  truncate_jsonl(run_ / "metrics.jsonl", "iter", static_cast<double>(first_step_));
  log_info("resuming {} at step {}/{}", newest->string(), first_step_, total_);
  return first_step_;
}

Trainer::StepResult Trainer::train_step(std::int64_t step) {
  const auto& t = settings_.train;
  Generator dropout(settings_.seed, mix_stream(kDropoutStream, static_cast<std::uint64_t>(step)));
  const nn::GeneratorScope scope(dropout);
  StepResult result;
  result.lr = nn::learning_rate(schedule_options(t, total_), step);
  optimizer_->zero_grad();
  const double share = 1.0 / static_cast<double>(t.accumulate);
  for (std::int64_t k = 0; k < t.accumulate; ++k) {
    const auto batch = loader_.next();
    result.wait_seconds += batch->wait_seconds;
    for (const auto index : batch->indices) result.samples.push_back(train_->name(index));
    distill::Objective objective;
    {
      const AutocastGuard precision(t.precision == "bf16");
      objective = distiller_->forward(batch->images, batch->labels, step, total_);
      if (t.accumulate > 1) objective.total = ops::mul_scalar(objective.total, share);
    }
    result.loss += objective.total.item();
    result.terms.resize(objective.terms.size());
    for (std::size_t i = 0; i < objective.terms.size(); ++i) {
      const auto& term = objective.terms[i];
      result.terms[i].name = term.name;
      result.terms[i].weight = term.weight;
      result.terms[i].value += term.raw.item() * share;
    }
    check_finite(step, result);
    objective.total.backward();
  }
  if (t.clip_norm > 0) nn::clip_grad_norm_(optimizer_->parameters(), t.clip_norm);
  optimizer_->step(result.lr);
  distiller_->after_step(step, total_);
  if (ema_) ema_->update();
  return result;
}

void Trainer::check_finite(std::int64_t step, const StepResult& result) const {
  if (std::isfinite(result.loss)) return;
  std::string terms;
  for (const auto& term : result.terms) terms += fmt::format(" {}={}", term.name, term.value);
  fail<NonFiniteError>("train",
                       "the loss is {} at step {} (lr {}):{}; samples: {}; the last checkpoint is intact; try a lower "
                       "train.lr, train.clip_norm or precision f32",
                       result.loss, step, format_short(result.lr), terms, fmt::join(result.samples, ", "));
}

void Trainer::log_step(std::int64_t step, const StepResult& result) {
  log_->window_wait += result.wait_seconds;
  const bool last = step + 1 == total_;
  if ((step + 1) % settings_.train.log_every != 0 && !last && step != first_step_) return;
  const double now = monotonic_seconds();
  log_->eta.mark(now, step + 1);
  StepLine line;
  line.iteration = step + 1;
  line.total = total_;
  line.learning_rate = result.lr;
  line.loss = result.loss;
  line.terms = result.terms;
  line.steps_per_second = log_->eta.rate();
  line.data_share = log_->window_wait / std::max(now - log_->window_start, 1e-9);
  line.memory_bytes = CpuAllocator::get().stats().peak;
  line.eta_seconds = log_->eta.remaining();
  log_info("{}", format_step_line(line));
  log_->window_start = now;
  log_->window_wait = 0;

  JsonObject metrics;
  metrics.add("iter", line.iteration).add("lr", result.lr).add("loss", result.loss);
  log_->board.scalar("lr", result.lr, line.iteration);
  log_->board.scalar("train/loss", result.loss, line.iteration);
  for (const auto& term : result.terms) {
    metrics.add("loss/" + term.name, term.value).add("weight/" + term.name, term.weight);
    log_->board.scalar("train/" + term.name, term.value, line.iteration);
  }
  metrics.add("steps_per_second", line.steps_per_second).add("data_share", line.data_share);
  log_->metrics.write(metrics);
  log_->board.flush();
}

InferenceOptions Trainer::inference_options() const {
  return evaluation_options(settings_.data, settings_.train.align_corners);
}

Evaluation Trainer::evaluate_student(const datasets::Dataset& dataset, const PredictionHook& hook) {
  std::optional<nn::EmaScope> average;
  if (ema_) average.emplace(*ema_);
  return evaluate(distiller_->student(), dataset, inference_options(), 0, hook);
}

Evaluation Trainer::validate(std::int64_t step) {
  const bool last = step == total_;
  std::optional<nn::EmaScope> average;
  if (ema_) average.emplace(*ema_);
  const auto options = inference_options();
  const auto& classes = val_->classes();
  const auto hook = [&](std::size_t i, const datasets::Sample& sample, const datasets::Mask& predicted) {
    if (!last || i >= static_cast<std::size_t>(settings_.train.pictures)) return;
    std::vector<datasets::Panel> panels{{sample.image, "image"},
                                        {datasets::overlay(sample.image, sample.mask, classes.palette), "truth"},
                                        {datasets::overlay(sample.image, predicted, classes.palette), "prediction"},
                                        {datasets::error_map(sample.mask, predicted, classes.palette), "wrong pixels"}};
    if (auto* teacher = distiller_->teacher()) {
      const auto mask = predict_mask(*teacher, sample.image, options);
      panels.insert(panels.begin() + 2, {datasets::overlay(sample.image, mask, classes.palette), "teacher"});
    }
    const auto columns = static_cast<int>(panels.size());
    datasets::write_image(run_ / "pictures" / fmt::format("val_{:03}.png", i), datasets::side_by_side(panels, columns));
  };
  if (last && settings_.train.pictures > 0) fs::create_directories(run_ / "pictures");
  Evaluation e = evaluate(distiller_->student(), *val_, options, 0, hook);
  last_miou_ = 100 * e.metrics.miou;
  log_info("validation ({}) at step {}: {}", settings_.data.val.split, step, datasets::summary_line(e.metrics));
  JsonObject line;
  line.add("iter", step).add("val_miou", last_miou_).add("val_pixel_acc", 100 * e.metrics.pixel_accuracy);
  std::vector<double> iou;
  for (const double v : e.metrics.iou) iou.push_back(100 * v);
  line.add("val_per_class_iou", std::span<const double>(iou));
  log_->metrics.write(line);
  log_->board.scalar("val/mIoU", last_miou_, step);
  if (last_miou_ > best_miou_) {
    best_miou_ = last_miou_;
    nn::Checkpoint best;
    best.step = step;
    best.model = distiller_->student().state_dict();
    best.model_metadata = model_metadata();
    best.numbers["miou"] = best_miou_;
    nn::save_checkpoint(run_ / "best", best);
  }
  return e;
}

std::map<std::string, std::string> Trainer::model_metadata() const {
  ModelCard card;
  card.spec = settings_.model.spec;
  card.classes = train_->classes();
  card.normalisation = settings_.data.normalisation;
  card.align_corners = settings_.train.align_corners;
  return to_metadata(card);
}

void Trainer::save(const fs::path& folder, std::int64_t step) {
  nn::Checkpoint c;
  c.step = step;
  c.model = distiller_->student().state_dict();
  c.model_metadata = model_metadata();
  c.parts["optimizer"] = optimizer_->state_dict();
  if (ema_) c.parts["ema"] = ema_->state_dict();
  // Connectors and losses with parameters; the student is already there under its own name.
  nn::StateDict rest;
  for (const auto& [name, tensor] : distiller_->state_dict()) {
    if (!name.starts_with("student.")) rest.emplace(name, tensor);
  }
  if (!rest.empty()) c.parts["objective"] = std::move(rest);
  c.numbers["best_miou"] = best_miou_;
  c.numbers["last_miou"] = last_miou_;
  c.texts["config"] = config_text_;
  nn::save_checkpoint(folder, c);
  nn::prune_checkpoints(run_, static_cast<std::size_t>(settings_.train.keep));
}

void Trainer::write_run_json(const TrainOutcome* outcome) const {
  const auto& t = settings_.train;
  JsonObject o;
  o.add_raw("environment", environment_json());
  o.add("seed", settings_.seed);
  o.add("model", settings_.model.spec.name).add("parameters", distiller_->student().parameter_count());
  o.add("effective_batch", t.batch * t.accumulate).add("steps", total_);
  o.add("samples", train_->size()).add("batches_per_epoch", loader_.batches_per_epoch());
  o.add("precision", t.precision).add("optimizer", t.optimizer).add("lr", t.lr).add("schedule", t.schedule);
  o.add("validation", "whole image, single scale, no flip");
  o.add("objective", std::span<const std::string>(distiller_->describe()));
  if (outcome != nullptr) {
    o.add("seconds_per_step", outcome->seconds_per_step).add("peak_bytes", outcome->peak_bytes);
    o.add("seconds", outcome->seconds).add("best_miou", outcome->best_miou).add("last_miou", outcome->last_miou);
  }
  write_file_atomic(run_ / "run.json", o.str() + "\n");
}

TrainOutcome Trainer::train() {
  const auto& t = settings_.train;
  TrainOutcome outcome;
  const double start = monotonic_seconds();
  log_ = std::make_shared<Log>(run_, total_);
  write_run_json(nullptr);
  for (const auto& line : distiller_->describe()) log_info("objective: {}", line);
  log_info("{} steps of batch {} x {}, {} samples, {} parameters, {}", total_, t.batch, t.accumulate, train_->size(),
           distiller_->student().parameter_count(), t.precision);

  const std::int64_t bpe = loader_.batches_per_epoch();
  loader_.start(first_step_ * t.accumulate / bpe, first_step_ * t.accumulate % bpe);
  distiller_->train();
  const SignalGuard signals;
  CpuAllocator::get().reset_peak();
  log_->eta.mark(monotonic_seconds(), first_step_);
  std::int64_t step = first_step_;
  while (step < total_) {
    const double step_start = monotonic_seconds();
    const StepResult result = train_step(step);
    step_seconds_.push_back(monotonic_seconds() - step_start);
    log_step(step, result);
    ++step;
    const bool last = step == total_;
    if (last || (t.eval_every > 0 && step % t.eval_every == 0)) {
      peak_bytes_ = std::max(peak_bytes_, CpuAllocator::get().stats().peak);
      Evaluation e = validate(step);
      if (last) outcome.last = std::move(e);
      CpuAllocator::get().reset_peak();  // whole images need more than a step does; the log shows the steps
    }
    const bool stop = signals.received() != 0;
    if (last || stop || (t.save_every > 0 && step % t.save_every == 0)) save(run_ / nn::checkpoint_name(step), step);
    if (stop && !last) {
      log_warn("stopped by a signal at step {}; saved, continue with --resume", step);
      outcome.interrupted = signals.received() == SIGINT;
      outcome.stopped = !outcome.interrupted;
      break;
    }
  }
  peak_bytes_ = std::max(peak_bytes_, CpuAllocator::get().stats().peak);
  outcome.steps = step;
  outcome.best_miou = best_miou_;
  outcome.last_miou = last_miou_;
  outcome.seconds = monotonic_seconds() - start;
  outcome.seconds_per_step = median_of(step_seconds_);
  outcome.peak_bytes = peak_bytes_;
  write_run_json(&outcome);
  write_report(run_);
  return outcome;
}

}  // namespace limbeck::apps
