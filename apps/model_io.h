// What this is: the link between a network and its weight file: the "card" that travels in the file's metadata, and
//   building a network from a file alone.
// Read next: models/weights.h (names), nn/checkpoint.h (folders).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "apps/inference.h"
#include "core/rng.h"
#include "datasets/dataset.h"
#include "models/zoo.h"

namespace limbeck::apps {

/// What somebody needs besides the numbers to use a network: architecture, classes, input scaling.
struct ModelCard {
  models::ModelSpec spec;
  datasets::ClassInfo classes;
  std::string normalisation = "imagenet";
  bool align_corners = false;
};

[[nodiscard]] std::map<std::string, std::string> to_metadata(const ModelCard& card);
/// Throws WeightsError naming file and entry when something is missing or malformed.
[[nodiscard]] ModelCard from_metadata(const std::map<std::string, std::string>& metadata, const std::string& file);

/// How the images of a weight file were scaled: its entry "normalisation", or what a text under "input" says; empty if unknown.
[[nodiscard]] std::string normalisation_of(const std::map<std::string, std::string>& metadata);

/// Warns where the weights in `file` were trained with another eps of batch norm, another padding of MobileNetV2 or another input
/// scaling than they are about to be used with: all of them change the results without any error.
void warn_of_other_origin(const std::map<std::string, std::string>& metadata, const std::string& file,
                          const models::ModelSpec& spec, const std::string& normalisation);

struct LoadedModel {
  std::shared_ptr<models::Model> model;
  ModelCard card;
  std::filesystem::path file;
  std::string imported_from;              ///< name of the file that `import` made it of; empty: none
  std::optional<nn::Calibration> ranges;  ///< for int8, of a file that `calibrate` wrote
  std::optional<nn::Int8Weights>
      bytes;  ///< of a file that holds its weights in 8 bits; the model has what they stand for
};

/// Builds the network that a run folder, step folder or .safetensors file describes and loads it strictly.
[[nodiscard]] LoadedModel load_model(const std::filesystem::path& path);

/// True for a file that load_model() reads: its metadata say what network it is for.
[[nodiscard]] bool describes_itself(const std::filesystem::path& file);

/// A network from a weight file of another project (models/weights.h), for which `card` says the rest. Every tensor must be there.
/// Throws: WeightsError with the whole report.
[[nodiscard]] LoadedModel load_foreign(const std::filesystem::path& file, const ModelCard& card);

/// What a network computes in if nobody says: int8 for weights in 8 bits, else f32.
[[nodiscard]] Precision usual_precision(const LoadedModel& loaded);

/// Throws WeightsError for a file without ranges for int8, naming the command that finds them.
[[nodiscard]] const nn::Calibration& int8_ranges(const LoadedModel& loaded);

/// Its fast way in that precision, in eval mode; see frozen(). Keeps a reference to the model.
/// Throws: as int8_ranges().
[[nodiscard]] ForwardFn network_of(const LoadedModel& loaded, Precision precision);

/// Writes a network with its weights in 8 bits, see nn/int8_weights.h. `metadata` must hold the card and the ranges.
/// Throws: Error for a network that has weights outside of convolutions.
void save_int8(models::Model& model, const std::filesystem::path& path, std::map<std::string, std::string> metadata);

/// The metadata entry "int8": one JSON object with version, pictures, graph (checksum), and scale and zero of every value.
[[nodiscard]] std::string to_json(const nn::Calibration& ranges);
/// Nothing without such an entry. Throws WeightsError naming file and entry when it is malformed or of another version.
[[nodiscard]] std::optional<nn::Calibration> ranges_of(const std::map<std::string, std::string>& metadata,
                                                       const std::string& file);

}  // namespace limbeck::apps
