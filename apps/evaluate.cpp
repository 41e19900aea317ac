#include "apps/evaluate.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <optional>

#include "core/log.h"
#include "datasets/convert.h"
#include "datasets/device_confusion.h"
#include "datasets/resample.h"

namespace limbeck::apps {

datasets::Sample prepare_sample(datasets::Sample sample, const InferenceOptions& options) {
  if (options.short_side > 0) {
    const double scale =
        static_cast<double>(options.short_side) / static_cast<double>(std::min(sample.image.h, sample.image.w));
    const auto scaled = [&](std::int64_t size) {
      return std::max<std::int64_t>(options.short_side, std::llround(static_cast<double>(size) * scale));
    };
    const std::int64_t h = scaled(sample.image.h);
    const std::int64_t w = scaled(sample.image.w);
    sample.image = datasets::resize(sample.image, h, w);
    if (sample.label < 0) sample.mask = datasets::resize(sample.mask, h, w);
  }
  return options.crop_h > 0 ? datasets::centre_crop(sample, options.crop_h, options.crop_w) : sample;
}

Evaluation evaluate(models::Model& model, const datasets::Dataset& dataset, const InferenceOptions& options,
                    std::size_t limit, const PredictionHook& hook) {
  const EvalMode mode(model);
  InferenceOptions there = options;
  there.device = device_of(model);
  return evaluate(frozen(model), dataset, there, limit, hook);
}

Evaluation evaluate(const ForwardFn& network, const datasets::Dataset& dataset, const InferenceOptions& options,
                    std::size_t limit, const PredictionHook& hook) {
  const std::size_t count = limit == 0 ? dataset.size() : std::min(limit, dataset.size());
  if (dataset.target() != datasets::Target::kPixels) {
    fail<DataError>("eval", "the data set has one class per picture, not per pixel; masks cannot be scored on it");
  }
  const std::int64_t classes = dataset.classes().count();
  std::optional<datasets::DeviceConfusion> counts;  // where predictions are on a GPU
  Evaluation result{datasets::ConfusionMatrix(classes), {}, 0, 0, {}};
  const double start = monotonic_seconds();
  Progress progress("eval", static_cast<std::int64_t>(count));
  // The next sample is read while the current one is computed.
  const auto load = [&](std::size_t i) { return prepare_sample(dataset.load(i), options); };
  auto next = std::async(std::launch::async, load, std::size_t{0});
  for (std::size_t i = 0; i < count; ++i) {
    const datasets::Sample sample = next.get();
    if (i + 1 < count) next = std::async(std::launch::async, load, i + 1);
    const Tensor ids = predict_ids(network, sample.image, options);
    const auto predicted = [&] { return datasets::to_mask(ids.to(kCpu)); };
    if (ids.device().is_cuda()) {
      if (!counts) counts.emplace(classes, ids.device());
      counts->update(datasets::to_tensor(sample.mask).to(ids.device()), ids);
    } else {
      result.matrix.update(sample.mask, predicted());
    }
    if (hook) hook(i, sample, predicted);
    progress.advance();
  }
  progress.finish();
  if (counts) result.matrix.merge(counts->matrix());
  result.metrics = result.matrix.compute(options.absent);
  result.images = static_cast<std::int64_t>(count);
  result.seconds = monotonic_seconds() - start;
  result.protocol = protocol_of(options);
  return result;
}

}  // namespace limbeck::apps
