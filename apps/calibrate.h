// What this is: ranges for a network in 8 bits, found on pictures, and what the 8 bits cost: scores side by side, and the error of
//   every layer.
// What it is not: the arithmetic of ranges (nn/calibration.h), or the file (model_io.h).
// Read next: verb_calibrate.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/inference.h"
#include "apps/model_io.h"
#include "datasets/dataset.h"
#include "datasets/metrics.h"

namespace limbeck::apps {

/// Samples to look at, with or without labels.
struct Pictures {
  std::string name;  ///< "camvid train", "12 files"
  std::size_t count = 0;
  std::function<datasets::Sample(std::size_t)> load;
  bool labelled = false;
};

/// At most `count` of them, evenly spread.
[[nodiscard]] Pictures spread(const Pictures& all, std::size_t count);

/// Runs the network in f32 on all pictures, as predict_scores() would.
/// Throws: a network that is no graph; numbers that are not finite.
[[nodiscard]] nn::Calibration find_ranges(models::Model& model, const Pictures& pictures,
                                          const InferenceOptions& options);

/// A network in one precision on the same pictures.
struct PrecisionScore {
  Precision precision = Precision::kF32;
  datasets::Metrics metrics;  ///< of labelled pictures
  double agreement = 1;       ///< share of pixels with the class that f32 gives
  double seconds = 0;         ///< in the network and the resize of its scores, per picture
};

/// f32, bf16 and int8, in this order.
[[nodiscard]] std::vector<PrecisionScore> compare_precisions(const LoadedModel& loaded, const Pictures& pictures,
                                                             const InferenceOptions& options);

/// What 8 bits did to the result of a convolution, with the errors of all layers before it.
struct LayerError {
  std::string name;  ///< of the module
  std::string what;  ///< "conv2d 3x3 ..."
  double error = 0;  ///< root of the mean square, relative to that of the result in f32
  double milliseconds = 0;
};

/// All convolutions in order, on these pictures.
[[nodiscard]] std::vector<LayerError> layer_errors(models::Model& model, const nn::Calibration& ranges,
                                                   const Pictures& pictures, const InferenceOptions& options);

}  // namespace limbeck::apps
