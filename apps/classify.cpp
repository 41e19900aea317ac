#include "apps/classify.h"

#include <algorithm>
#include <future>
#include <utility>
#include <vector>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/convert.h"
#include "models/zoo.h"
#include "ops/concat.h"
#include "ops/copy.h"
#include "ops/reduce.h"

namespace limbeck::apps {
namespace {

constexpr std::size_t kBatch = 16;

/// Samples that wait for their turn; all have the same size.
struct Waiting {
  std::vector<datasets::Sample> samples;
  std::vector<Tensor> inputs;
  std::size_t first = 0;  ///< index of the first in the data set

  [[nodiscard]] bool fits(const datasets::Sample& s) const {
    return samples.empty() ||
           (samples.size() < kBatch && samples.front().image.h == s.image.h && samples.front().image.w == s.image.w);
  }
};

void flush(const ForwardFn& network, Waiting& waiting, const InferenceOptions& options, datasets::TopK& score,
           const ClassHook& hook) {
  if (waiting.samples.empty()) return;
  std::vector<std::int64_t> labels;
  for (const auto& s : waiting.samples) labels.push_back(s.label);
  Tensor logits;
  {
    const AutocastGuard precision(options.precision == Precision::kBF16);
    logits = network(ops::concat(waiting.inputs, 0));
  }
  logits = ops::cast(logits, DType::kF32).to(kCpu);
  score.update(logits, Tensor::from(labels, {static_cast<std::int64_t>(labels.size())}));
  if (hook) {
    const auto best = ops::argmax(logits, 1).to_vector<std::int64_t>();
    for (std::size_t i = 0; i < best.size(); ++i) hook(waiting.first + i, waiting.samples[i], best[i]);
  }
  waiting.first += waiting.samples.size();
  waiting.samples.clear();
  waiting.inputs.clear();
}

}  // namespace

void require_fitting_network(const std::string& name, datasets::Target target, const char* role) {
  const bool classifies = models::is_classification(name);
  if (classifies && target == datasets::Target::kPixels) {
    fail<ConfigError>(
        role, "{} classifies whole pictures, but the data set has one class per pixel; choose a segmentation network",
        name);
  }
  if (!classifies && target == datasets::Target::kImage) {
    fail<ConfigError>(
        role,
        "{} paints masks, but the data set has one class per picture; choose a classification network such as "
        "resnet18 or mobilenet_v2",
        name);
  }
}

ClassEvaluation evaluate_classes(models::Model& model, const datasets::Dataset& dataset,
                                 const InferenceOptions& options, std::size_t limit, const ClassHook& hook) {
  if (dataset.target() != datasets::Target::kImage) {
    fail<DataError>(
        "eval",
        "the data set has one class per pixel, not per picture; a classification network cannot be scored on it");
  }
  const std::size_t count = limit == 0 ? dataset.size() : std::min(limit, dataset.size());
  ClassEvaluation result{datasets::TopK(dataset.classes().count()), static_cast<std::int64_t>(count), 0,
                         protocol_of(options)};
  const EvalMode mode(model);
  const NoGradGuard off;
  const ForwardFn network = frozen(model);
  const double start = monotonic_seconds();
  Progress progress("eval", static_cast<std::int64_t>(count));
  const auto load = [&](std::size_t i) { return prepare_sample(dataset.load(i), options); };
  auto next = std::async(std::launch::async, load, std::size_t{0});
  Waiting waiting;
  for (std::size_t i = 0; i < count; ++i) {
    datasets::Sample sample = next.get();
    if (i + 1 < count) next = std::async(std::launch::async, load, i + 1);
    if (!waiting.fits(sample)) flush(network, waiting, options, result.score, hook);
    waiting.inputs.push_back(datasets::to_tensor(sample.image, options.normalisation));
    waiting.samples.push_back(std::move(sample));
    progress.advance();
  }
  flush(network, waiting, options, result.score, hook);
  progress.finish();
  result.seconds = monotonic_seconds() - start;
  return result;
}

}  // namespace limbeck::apps
