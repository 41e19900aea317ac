#include "apps/model_io.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "apps/run_dir.h"
#include "core/json.h"
#include "core/log.h"
#include "core/safetensors.h"

namespace limbeck::apps {

// Metadata of a safetensors file are strings. The network has an entry per option (models/zoo.h); lists are JSON texts.

std::map<std::string, std::string> to_metadata(const ModelCard& card) {
  auto metadata = models::spec_to_metadata(card.spec);
  std::vector<std::string> colours;
  for (const auto& c : card.classes.palette) colours.push_back(fmt::format("[{},{},{}]", c[0], c[1], c[2]));
  std::vector<std::string> names;
  for (const auto& name : card.classes.names) names.push_back(json_quote(name));
  metadata["class_names"] = json_array(names);
  metadata["palette"] = json_array(colours);
  metadata["normalisation"] = card.normalisation;
  metadata["align_corners"] = card.align_corners ? "true" : "false";
  return metadata;
}

ModelCard from_metadata(const std::map<std::string, std::string>& metadata, const std::string& file) {
  const auto entry = [&](const char* key) -> const std::string& {
    const auto found = metadata.find(key);
    if (found == metadata.end()) {
      fail<WeightsError>("weights",
                         "{}: the metadata entry '{}' is missing: the file was not written by a training run; "
                         "use it as model.init of a configuration instead",
                         file, key);
    }
    return found->second;
  };
  ModelCard card;
  static_cast<void>(entry("model"));
  const auto spec = models::spec_from_metadata(metadata);
  if (!spec) fail<WeightsError>("weights", "{}: the metadata do not describe a network", file);
  card.spec = *spec;
  try {
    card.classes.names = nlohmann::json::parse(entry("class_names")).get<std::vector<std::string>>();
    card.classes.palette = nlohmann::json::parse(entry("palette")).get<std::vector<datasets::Rgb>>();
  } catch (const nlohmann::json::exception& e) {
    fail<WeightsError>("weights", "{}: metadata 'class_names' or 'palette' is malformed: {}", file, e.what());
  }
  if (card.classes.count() != card.spec.classes) {
    fail<WeightsError>("weights", "{}: metadata 'class_names' has {} names, the network {} classes", file,
                       card.classes.count(), card.spec.classes);
  }
  card.normalisation = entry("normalisation");
  card.align_corners = entry("align_corners") == "true";
  return card;
}

std::string normalisation_of(const std::map<std::string, std::string>& metadata) {
  if (const auto found = metadata.find("normalisation"); found != metadata.end()) return found->second;
  const auto input = metadata.find("input");
  return input != metadata.end() && input->second.find("x/127.5-1") != std::string::npos ? "symmetric" : "";
}

void warn_of_other_origin(const std::map<std::string, std::string>& metadata, const std::string& file,
                          const models::ModelSpec& spec, const std::string& normalisation) {
  if (const auto eps = metadata.find("bn_eps");
      eps != metadata.end() && std::strtod(eps->second.c_str(), nullptr) != spec.bn_eps) {
    log_warn("{}: trained with bn_eps {}, used with {}", file, eps->second, spec.bn_eps);
  }
  const auto padding_of = [](const std::string& text) { return text.empty() ? "depthwise" : text; };
  if (const auto padding = metadata.find("padding");
      padding != metadata.end() && padding_of(padding->second) != padding_of(spec.padding)) {
    log_warn("{}: trained with padding {}, used with {}", file, padding_of(padding->second), padding_of(spec.padding));
  }
  const std::string own = normalisation_of(metadata);
  if (!own.empty() && own != normalisation)
    log_warn("{}: trained with normalisation {}, used with {}", file, own, normalisation);
}

namespace {

/// The network of the file's metadata, which may describe one of any size: it is built without memory first, and its numbers counted.
std::shared_ptr<models::Model> make_described(const models::ModelSpec& spec, const SafetensorsFile& file,
                                              const std::string& name) {
  Generator unused;  // every value comes from the file
  try {
    std::int64_t described = 0, there = 0;
    {
      const nn::ParameterDevice nowhere(kMeta);
      for (const auto& [key, tensor] : models::make_model(spec, unused)->state_dict()) described += tensor.numel();
    }
    for (const auto& entry : file.entries) there += entry.shape.numel();
    if (described > there) {
      throw WeightsError(
          fmt::format("the network that its metadata describe has {} numbers, the file {}", described, there));
    }
    return models::make_model(spec, unused);
  } catch (const Error& e) {
    fail<WeightsError>("weights", "{}: {}", name, e.what());
  }
}

}  // namespace

LoadedModel load_model(const std::filesystem::path& path) {
  LoadedModel loaded;
  loaded.file = find_weights(path);
  const SafetensorsFile file = load_safetensors(loaded.file);
  loaded.card = from_metadata(file.metadata, loaded.file.string());
  loaded.model = make_described(loaded.card.spec, file, loaded.file.string());
  nn::StateDict state;
  for (const auto& entry : file.entries) state.emplace(entry.name, entry.tensor);
  try {
    loaded.model->load_state_dict(state);
  } catch (const WeightsError& e) {
    fail<WeightsError>("weights", "{}: {}", loaded.file.string(), e.what());
  }
  loaded.model->eval();
  return loaded;
}

}  // namespace limbeck::apps
