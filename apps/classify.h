// What this is: scoring a classification network on a data set with one class per picture.
// What it is not: segmentation (evaluate.h).
// Read next: classify_task.h, verb_eval.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "apps/evaluate.h"
#include "datasets/dataset.h"
#include "datasets/top_k.h"
#include "models/model.h"

namespace limbeck::apps {

struct ClassEvaluation {
  datasets::TopK score;
  std::int64_t images = 0;
  double seconds = 0;
  std::string protocol;
};

/// Called with every sample as the network saw it and the class it gave, in order.
using ClassHook = std::function<void(std::size_t index, const datasets::Sample&, std::int64_t predicted)>;

/// Scores `model` on up to `limit` samples (0: all). Switches the model to eval mode and back.
/// Pictures of equal size are computed in batches; give options.crop_h to make them equal.
/// Throws: ConfigError when the network gives masks, DataError when the data set has masks.
[[nodiscard]] ClassEvaluation evaluate_classes(models::Model& model, const datasets::Dataset& dataset,
                                               const InferenceOptions& options, std::size_t limit = 0,
                                               const ClassHook& hook = {});

/// Refuses a network that does not fit the labels of the data set: a classification network needs one class per
/// picture. `role` names the network in the message. Throws ConfigError.
void require_fitting_network(const std::string& name, datasets::Target target, const char* role);

}  // namespace limbeck::apps
