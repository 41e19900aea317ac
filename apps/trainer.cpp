#include "apps/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/report.h"
#include "apps/run_dir.h"
#include "apps/signals.h"
#include "apps/statistics.h"
#include "core/autocast.h"
#include "core/choices.h"
#include "core/cuda.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/profile.h"
#include "core/rng.h"
#include "core/step_graph.h"
#include "datasets/normalise.h"
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
constexpr const char* kChoices = "choices";  // name of core/choices.h in checkpoints
constexpr std::size_t kMostInFlight = 4;     // steps on a GPU whose losses have not been read

datasets::LoaderOptions loader_options(const Settings& s, Device device) {
  datasets::LoaderOptions o;
  o.bytes = s.data.bytes == "on" || (s.data.bytes == "auto" && device.is_cuda() && !s.data.transform.pad_zero);
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

bool is_depthwise(const nn::NamedTensor& p) {
  return p.tensor.ndim() == 4 && p.tensor.size(1) == 1 && p.tensor.size(0) > 1;
}

}  // namespace

std::unique_ptr<nn::Optimizer> build_optimizer(const TrainSettings& t, const nn::Module& module) {
  constexpr std::size_t kKinds = 3;
  const std::array<const char*, kKinds> kinds{"", " vectors", " depthwise"};
  const std::array<bool, kKinds> decays{true, t.decay_vectors, t.decay_depthwise};
  // Layers of terms are a part of their own only where their rate is.
  const std::array<const char*, 3> parts{"backbone", "head", "terms"};
  std::vector<nn::ParameterGroup> groups(parts.size() * kKinds);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const std::size_t part = i / kKinds;
    groups[i].lr_multiplier = part > 0 ? t.head_lr : 1.0;
    groups[i].constant_lr = part > 1 ? t.lr * t.head_lr : 0.0;
    groups[i].weight_decay = decays.at(i % kKinds) ? t.weight_decay : 0.0;
    groups[i].name = fmt::format("{}{}", parts.at(part), kinds.at(i % kKinds));
  }
  bool any_of_terms = false;
  nn::assign_parameters(groups, module, [&](const nn::NamedTensor& p) {
    const bool of_term = t.constant_term_lr && (p.name.starts_with("term") || p.name.starts_with("connector"));
    any_of_terms = any_of_terms || of_term;
    const int part = of_term ? 2 : p.name.find("backbone.") == std::string::npos ? 1 : 0;
    const int kind = nn::is_vector_parameter(p) ? 1 : is_depthwise(p) && !t.decay_depthwise ? 2 : 0;
    return part * static_cast<int>(kKinds) + kind;
  });
  if (t.constant_term_lr && !any_of_terms) {
    fail<ConfigError>("train", "term_lr is constant, but no distillation term has layers of its own");
  }
  std::erase_if(groups, [](const nn::ParameterGroup& g) { return g.params.empty(); });
  nn::OptimizerOptions options;
  options.name = t.optimizer;
  options.momentum = t.momentum;
  options.nesterov = t.nesterov;
  return nn::make_optimizer(options, std::move(groups));
}

Trainer::Trainer(fs::path run, Settings settings, std::shared_ptr<Task> task,
                 std::shared_ptr<const datasets::Dataset> train, std::string config_text)
    : run_(std::move(run)),
      settings_(std::move(settings)),
      task_(std::move(task)),
      train_(std::move(train)),
      config_text_(std::move(config_text)),
      optimizer_(build_optimizer(settings_.train, task_->trained())),
      device_(optimizer_->parameters().front().device()),
      loader_(train_, loader_options(settings_, device_)) {
  const auto& t = settings_.train;
  choices::set_ranked(t.deterministic);
  total_ = t.steps > 0 ? t.steps : std::max<std::int64_t>(1, t.epochs * loader_.batches_per_epoch() / t.accumulate);
  task_->set_steps_per_epoch(static_cast<double>(loader_.batches_per_epoch()) / static_cast<double>(t.accumulate));
  recorder_ = std::make_unique<StepRecorder>(device_, t.cuda_graph);
  if (t.ema > 0) ema_ = std::make_unique<nn::Ema>(task_->result(), nn::EmaOptions{.decay = t.ema});
}

std::int64_t Trainer::resume() {
  const auto newest = nn::latest_checkpoint(run_);
  if (!newest) return 0;
  const nn::Checkpoint c = nn::load_checkpoint(*newest);
  task_->result().load_state_dict(c.model);
  optimizer_->load_state_dict(c.parts.at("optimizer"));
  const auto objective = c.parts.find("objective");
  if (objective != c.parts.end()) task_->trained().load_state_dict(objective->second, {.strict = false});
  if (ema_) {
    const auto average = c.parts.find("ema");
    if (average == c.parts.end()) {
      fail<WeightsError>("resume", "{} has no weight average, but train.ema is {}", newest->string(),
                         settings_.train.ema);
    }
    ema_->load_state_dict(average->second);
  }
  const auto chosen = c.texts.find(kChoices);
  if (chosen != c.texts.end()) choices::adopt(chosen->second);
  best_score_ = c.numbers.at("best_" + task_->score_name());
  last_score_ = c.numbers.at("last_" + task_->score_name());
  first_step_ = c.step;
  truncate_jsonl(run_ / "metrics.jsonl", "iter", static_cast<double>(first_step_));
  log_info("resuming {} at step {}/{}", newest->string(), first_step_, total_);
  return first_step_;
}

void Trainer::train_step(std::int64_t step) {
  const auto& t = settings_.train;
  const ProfileRange range("step");
  InFlight flight;
  flight.step = step;
  StepResult& result = flight.result;
  result.lr = nn::learning_rate(schedule_options(t, total_), step);
  optimizer_->set_rate(result.lr);
  const auto next = [&]() -> StepInputs {
    const ProfileRange data("data");
    const auto batch = loader_.next();
    result.wait_seconds += batch->wait_seconds;
    for (const auto index : batch->indices) result.samples.push_back(train_->name(index));
    return {batch->images, batch->labels};
  };
  StepOutputs out = recorder_->run(step, task_->phase(step, total_), t.accumulate, next,
                                   [&](const StepRecorder::Source& inputs) { return work(step, inputs, result); });
  if (out.replayed) {
    for (auto& term : out.terms) term.weight = task_->weight_of(term.id, step, total_);
  }
  if (result.terms.empty()) name_terms(out, result);
  flight.numbers = std::move(out.counts);
  flight.norm = out.norm;
  flight.values = Readback(out.numbers);
  result.end_seconds = monotonic_seconds();
  in_flight_.push_back(std::move(flight));
}

void Trainer::name_terms(const StepOutputs& out, StepResult& result) {
  for (const auto& term : out.terms) {
    result.terms.emplace_back();
    result.terms.back().name = term.name;
    result.terms.back().weight = term.weight;
  }
}

/// Everything of a step that a recording repeats: forward, backward, update, what follows an update.
StepOutputs Trainer::work(std::int64_t step, const StepRecorder::Source& inputs, StepResult& result) {
  const auto& t = settings_.train;
  const auto stream = [](std::int64_t at) { return mix_stream(kDropoutStream, static_cast<std::uint64_t>(at)); };
  Generator dropout(settings_.seed, stream(step));
  const nn::GeneratorScope scope(dropout);
  if (StepGraph* graph = StepGraph::current()) graph->random_stream(stream);
  StepOutputs out;
  optimizer_->zero_grad();
  const double share = 1.0 / static_cast<double>(t.accumulate);
  bool learns = true;
  for (std::int64_t k = 0; k < t.accumulate; ++k) {
    const StepInputs batch = inputs();
    distill::Objective objective;
    {
      const bool low = t.precision == "bf16";
      const AutocastGuard precision(low);
      const Tensor images = batch.images.dtype() == DType::kU8
                                ? datasets::normalise(batch.images, settings_.data.transform.normalisation,
                                                      low ? DType::kBF16 : DType::kF32)
                                : batch.images;
      objective = task_->forward(images, batch.labels, step, total_);
      if (t.accumulate > 1) objective.total = ops::mul_scalar(objective.total, share);
    }
    std::vector<Tensor> losses{objective.total};
    for (const auto& term : objective.terms) {
      if (k == 0) out.terms.push_back({std::string(term.name), term.id, term.weight});
      losses.push_back(term.raw);
    }
    if (device_.is_cuda()) {
      out.counts.push_back(losses.size());
      for (const Tensor& loss : losses) out.numbers.push_back(loss.detach());  // the number, not its history
    } else {
      if (k == 0) name_terms(out, result);
      add_numbers(Readback(losses).wait(), result);
      check_finite(step, result);
    }
    learns = objective.total.requires_grad();  // not where only connectors learn, and there are none
    if (learns) objective.total.backward();
  }
  if (t.clip_norm > 0 && learns) {
    if (device_.is_cuda()) {
      out.numbers.push_back(nn::clip_grad_norm_on_device_(optimizer_->parameters(), t.clip_norm));
      out.norm = true;
    } else {
      nn::clip_grad_norm_(optimizer_->parameters(), t.clip_norm);
    }
  }
  optimizer_->step(result.lr);
  task_->after_step(step, total_);
  if (ema_) ema_->update();
  return out;
}

/// `values`: the loss of one accumulated batch and its terms.
void Trainer::add_numbers(std::span<const double> values, StepResult& result) const {
  result.loss += values[0];
  for (std::size_t i = 0; i + 1 < values.size(); ++i) {
    result.terms[i].value += values[i + 1] / static_cast<double>(settings_.train.accumulate);
  }
}

void Trainer::settle(std::size_t most) {
  while (in_flight_.size() > most) {
    InFlight flight = std::move(in_flight_.front());
    in_flight_.pop_front();
    const std::vector<double> all = flight.values.wait();
    std::span<const double> values(all);
    for (const std::size_t count : flight.numbers) {
      add_numbers(values.first(count), flight.result);
      values = values.subspan(count);
    }
    if (device_.is_cuda()) check_finite(flight.step, flight.result);
    if (flight.norm && !std::isfinite(values.front())) {
      fail<NonFiniteError>("clip_grad_norm",
                           "the gradient norm is {} at step {}; the last checkpoint is intact; AnomalyGuard names the "
                           "op that made it",
                           values.front(), flight.step);
    }
    flight.result.peak_bytes = peak_memory();
    log_->step(flight.step, flight.result);
  }
}

std::size_t Trainer::peak_memory() const {
  return device_.is_cuda() ? cuda::memory_stats(device_).peak : CpuAllocator::get().stats().peak;
}

void Trainer::reset_peak_memory() {
  if (device_.is_cuda()) {
    cuda::reset_peak(device_);
  } else {
    CpuAllocator::get().reset_peak();
  }
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

std::optional<Evaluation> Trainer::validate(std::int64_t step) {
  const bool last = step == total_;
  const auto average_weights = average();
  fs::path pictures;
  if (last && settings_.train.pictures > 0) {
    pictures = run_ / "pictures";
    fs::create_directories(pictures);
  }
  Score score = task_->validate(pictures);
  last_score_ = score.value;
  log_info("validation ({}) at step {}: {}", settings_.data.val.split, step, score.summary);
  log_->validation(step, std::move(score.metrics), "val/" + task_->score_name(), last_score_);
  if (last_score_ > best_score_) {
    best_score_ = last_score_;
    nn::Checkpoint best;
    best.step = step;
    best.model = task_->result().state_dict();
    best.model_metadata = task_->metadata();
    best.numbers[task_->score_name()] = best_score_;
    nn::save_checkpoint(run_ / "best", best);
  }
  return std::move(score.evaluation);
}

void Trainer::save(const fs::path& folder, std::int64_t step) {
  nn::Checkpoint c;
  c.step = step;
  c.model = task_->result().state_dict();
  c.model_metadata = task_->metadata();
  c.parts["optimizer"] = optimizer_->state_dict();
  if (ema_) c.parts["ema"] = ema_->state_dict();
  // Connectors and losses with parameters; the result is already there under its own name.
  nn::StateDict rest;
  for (const auto& [name, tensor] : task_->trained().state_dict()) {
    if (!name.starts_with(task_->result_prefix())) rest.emplace(name, tensor);
  }
  if (!rest.empty()) c.parts["objective"] = std::move(rest);
  c.numbers["best_" + task_->score_name()] = best_score_;
  c.numbers["last_" + task_->score_name()] = last_score_;
  c.texts["config"] = config_text_;
  const std::string chosen = choices::to_text();
  if (!chosen.empty()) c.texts[kChoices] = chosen;
  nn::save_checkpoint(folder, c);
  nn::prune_checkpoints(run_, static_cast<std::size_t>(settings_.train.keep));
}

void Trainer::write_run_json(const TrainOutcome* outcome) const {
  const auto& t = settings_.train;
  JsonObject o;
  o.add_raw("environment", environment_json());
  o.add("seed", settings_.seed);
  task_->add_facts(o);
  o.add("effective_batch", t.batch * t.accumulate).add("steps", total_);
  o.add("samples", train_->size()).add("batches_per_epoch", loader_.batches_per_epoch());
  o.add("precision", t.precision).add("optimizer", t.optimizer).add("lr", t.lr).add("schedule", t.schedule);
  o.add("objective", std::span<const std::string>(task_->describe()));
  if (outcome != nullptr) {
    o.add("steps_done", outcome->steps);
    o.add("seconds_per_step", outcome->seconds_per_step).add("peak_bytes", outcome->peak_bytes);
    o.add("seconds", outcome->seconds);
    if (best_score_ != kNoScore)
      o.add("best_" + task_->score_name(), best_score_).add("last_" + task_->score_name(), last_score_);
  }
  write_file_atomic(run_ / "run.json", o.str() + "\n");
}

void Trainer::start() {
  const auto& t = settings_.train;
  write_run_json(nullptr);
  for (const auto& line : task_->describe()) log_info("objective: {}", line);
  log_info("{} of batch {} x {}, {}, {} parameters, {}", format_count(total_, "step"), t.batch, t.accumulate,
           format_count(train_->size(), "sample"), task_->result().parameter_count(), t.precision);
  const std::int64_t bpe = loader_.batches_per_epoch();
  loader_.start(first_step_ * t.accumulate / bpe, first_step_ * t.accumulate % bpe);
  task_->trained().train();
  reset_peak_memory();
  log_ = std::make_unique<RunLog>(run_, first_step_, total_, t.log_every);
}

TrainOutcome Trainer::train() {
  const auto& t = settings_.train;
  TrainOutcome outcome;
  const double start_seconds = monotonic_seconds();
  start();
  const SignalGuard signals;
  std::int64_t step = first_step_;
  while (step < total_) {
    const double step_start = monotonic_seconds();
    train_step(step);
    ++step;
    const bool last = step == total_;
    const bool score = last || (t.eval_every > 0 && step % t.eval_every == 0);
    settle(device_.is_cuda() && !score ? kMostInFlight : 0);
    step_seconds_.push_back(monotonic_seconds() - step_start);
    if (score) {
      peak_bytes_ = std::max(peak_bytes_, peak_memory());
      auto evaluation = validate(step);
      if (last) outcome.last = std::move(evaluation);
      reset_peak_memory();  // whole images need more than a step does; the log shows the steps
    }
    const bool stop = signals.received() != 0;
    if (last || stop || (t.save_every > 0 && step % t.save_every == 0)) {
      settle(0);
      save(run_ / nn::checkpoint_name(step), step);
    }
    if (stop && !last) {
      log_warn("stopped by a signal at step {}; saved, continue with --resume", step);
      outcome.interrupted = signals.received() == SIGINT;
      outcome.stopped = !outcome.interrupted;
      break;
    }
  }
  outcome.steps = step;
  return finish(std::move(outcome), start_seconds);
}

TrainOutcome Trainer::finish(TrainOutcome outcome, double start_seconds) {
  peak_bytes_ = std::max(peak_bytes_, peak_memory());
  outcome.best_score = best_score_;
  outcome.last_score = last_score_;
  outcome.seconds = monotonic_seconds() - start_seconds;
  outcome.seconds_per_step = median_of(step_seconds_);
  outcome.peak_bytes = peak_bytes_;
  write_run_json(&outcome);
  write_report(run_);
  return outcome;
}

}  // namespace limbeck::apps
