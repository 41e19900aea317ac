// What this is: networks by name.
// Read next: models/README.md, which says what each name is and where it comes from.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"

namespace limbeck::models {

/// Builds the network `spec.name` and fills its weights from `generator`.
/// Shapes: those of the network
/// Throws: ConfigError for an unknown name, with the nearest known one and the list; or for options it does not have.
[[nodiscard]] std::shared_ptr<Model> make_model(const ModelSpec& spec, Generator& generator);

/// All names, sorted as in models/README.md.
/// Shapes: none
[[nodiscard]] std::vector<std::string> model_names();

/// True for networks that classify whole images.
/// Shapes: none
[[nodiscard]] bool is_classification(const std::string& name);

/// The spec as texts for the metadata of a weight file, and back. Unknown keys are ignored when reading.
/// Shapes: none
/// Throws: WeightsError for a value that cannot be read.
[[nodiscard]] std::map<std::string, std::string> spec_to_metadata(const ModelSpec& spec);
[[nodiscard]] std::optional<ModelSpec> spec_from_metadata(const std::map<std::string, std::string>& metadata);

}  // namespace limbeck::models
