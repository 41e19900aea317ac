// What this is: the score of a trained network on one split of a data set, as `eval` prints it and the table of `run` shows it.
// Read next: evaluate.h (the arithmetic), verb_eval.cpp, verb_run.cpp.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <variant>

#include "apps/classify.h"
#include "apps/cli.h"
#include "apps/evaluate.h"
#include "apps/settings.h"

namespace limbeck::apps {

struct ScoredModel {
  std::filesystem::path file;  ///< the weights
  datasets::ClassInfo classes;
  std::variant<Evaluation, ClassEvaluation> evaluation;
  std::string protocol;  ///< with data set and split in front

  /// One JSON object: model, miou, per_class_iou, pixel_acc, mean_acc, fw_iou, classes_averaged, images, seconds, protocol;
  /// for classification top1, top5, per_class_acc in place of the scores.
  [[nodiscard]] std::string json() const;
  /// The same for people.
  [[nodiscard]] std::string text() const;
};

/// Scores `model` (run folder, step folder or weight file) on data.val, in usual_precision() unless told otherwise.
/// Throws WeightsError when its classes are not those of the data set, ConfigError when it is a network for the other task.
[[nodiscard]] ScoredModel score_model(const std::filesystem::path& model, const DataSettings& data,
                                      std::optional<Precision> precision = {}, const ProtocolArgs& protocol = {});

}  // namespace limbeck::apps
