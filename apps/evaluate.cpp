#include "apps/evaluate.h"

#include <algorithm>
#include <future>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/convert.h"
#include "ops/copy.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"

namespace limbeck::apps {
namespace {

/// Eval mode for a scope; a frozen teacher stays as it is.
class EvalMode {
 public:
  explicit EvalMode(nn::Module& module) : module_(module), training_(module.is_training()) { module_.eval(); }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;
  ~EvalMode() { module_.train(training_); }

 private:
  nn::Module& module_;
  bool training_;
};

}  // namespace

datasets::Mask predict_mask(models::Model& model, const datasets::Image& image, const InferenceOptions& options) {
  const NoGradGuard off;
  const AutocastGuard precision(options.bf16);
  Tensor x = datasets::to_tensor(image, options.normalisation);
  if (options.resize_h > 0) x = ops::resize_bilinear(x, {options.resize_h, options.resize_w}, false);
  const models::Output output = model.forward(x);
  const Tensor logits =
      ops::resize_bilinear(ops::cast(output.logits, DType::kF32), {image.h, image.w}, options.align_corners);
  return datasets::to_mask(ops::argmax(logits, 1));
}

Evaluation evaluate(models::Model& model, const datasets::Dataset& dataset, const InferenceOptions& options,
                    std::size_t limit, const PredictionHook& hook) {
  const std::size_t count = limit == 0 ? dataset.size() : std::min(limit, dataset.size());
  const std::int64_t classes = dataset.classes().count();
  Evaluation result{datasets::ConfusionMatrix(classes), {}, 0, 0, {}};
  const EvalMode mode(model);
  const double start = monotonic_seconds();
  Progress progress("eval", static_cast<std::int64_t>(count));
  // The next sample is read while the current one is computed.
  auto next = std::async(std::launch::async, [&] { return dataset.load(0); });
  for (std::size_t i = 0; i < count; ++i) {
    const datasets::Sample sample = next.get();
    if (i + 1 < count) next = std::async(std::launch::async, [&, k = i + 1] { return dataset.load(k); });
    const datasets::Mask predicted = predict_mask(model, sample.image, options);
    result.matrix.update(sample.mask, predicted);
    if (hook) hook(i, sample, predicted);
    progress.advance();
  }
  progress.finish();
  result.metrics = result.matrix.compute();
  result.images = static_cast<std::int64_t>(count);
  result.seconds = monotonic_seconds() - start;
  result.protocol = fmt::format("whole image, {}, single scale, no flip, {}",
                                options.resize_h > 0 ? fmt::format("input {}x{}", options.resize_h, options.resize_w)
                                                     : std::string("own size"),
                                options.bf16 ? "bf16" : "f32");
  return result;
}

}  // namespace limbeck::apps
