// What this is: scoring a network on a data set.
// Read next: inference.h (the prediction of one picture), verb_eval.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "apps/inference.h"
#include "datasets/dataset.h"
#include "datasets/metrics.h"
#include "models/model.h"

namespace limbeck::apps {

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

struct Evaluation {
  datasets::ConfusionMatrix matrix;
  datasets::Metrics metrics;
  std::int64_t images = 0;
  double seconds = 0;
  std::string protocol;  ///< "whole image, own size, single scale, no flip, f32"
};

/// The sample as evaluate() shows it to the network: resized to the shorter side, cropped to its middle.
/// Scores of a smaller label map are not those of the whole one; Evaluation::protocol says which was used.
[[nodiscard]] datasets::Sample prepare_sample(datasets::Sample sample, const InferenceOptions& options);

/// Called with every sample and its prediction, in order; for pictures in reports. The mask is fetched (from a GPU) when it
/// is asked for.
using PredictionHook =
    std::function<void(std::size_t index, const datasets::Sample&, const std::function<datasets::Mask()>& predicted)>;

/// Scores `model` on up to `limit` samples (0: all). Switches the model to eval mode and back.
/// One confusion matrix over the whole set; truth and prediction at the size of the labels. Predictions of a GPU are counted
/// there.
/// Throws: DataError when the data set's classes do not match the model's, or whole pictures have the classes.
[[nodiscard]] Evaluation evaluate(models::Model& model, const datasets::Dataset& dataset,
                                  const InferenceOptions& options, std::size_t limit = 0,
                                  const PredictionHook& hook = {});
/// The same for a network that computes in options.precision.
[[nodiscard]] Evaluation evaluate(const ForwardFn& network, const datasets::Dataset& dataset,
                                  const InferenceOptions& options, std::size_t limit = 0,
                                  const PredictionHook& hook = {});

}  // namespace limbeck::apps
