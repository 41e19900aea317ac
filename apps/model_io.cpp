#include "apps/model_io.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/run_dir.h"
#include "core/autograd.h"
#include "core/json.h"
#include "core/log.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "models/frozen_model.h"
#include "models/weights.h"

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
      fail<WeightsError>(
          "weights",
          "{}: the metadata entry '{}' is missing: the file was not written by limbeck; `limbeck import` makes one "
          "of it that is complete, and model.init of a configuration takes it as it is",
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

namespace {

/// The network of a file with weights in 8 bits. Its convolutions are compared with the file before there is memory for them.
std::shared_ptr<models::Model> make_from_bytes(const models::ModelSpec& spec, const nn::Int8Weights& bytes) {
  const NoGradGuard off;
  Generator unused;
  {
    const nn::ParameterDevice nowhere(kMeta);
    const auto described = models::make_model(spec, unused);
    described->eval();
    nn::check_fit(models::logits_graph(*described), bytes);
  }
  auto model = models::make_model(spec, unused);
  model->eval();
  for (const auto& p : model->named_parameters()) p.tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  nn::restore(models::logits_graph(*model), bytes);
  for (const auto& p : model->named_parameters()) {
    if (std::isnan(p.tensor.to_vector<float>().front()))
      fail<WeightsError>("weights", "the network has '{}', which weights in 8 bits do not hold", p.name);
  }
  return model;
}

}  // namespace

LoadedModel load_model(const std::filesystem::path& path) {
  LoadedModel loaded;
  loaded.file = find_weights(path);
  const std::string name = loaded.file.string();
  if (is_torch_file(loaded.file)) {
    fail<WeightsError>(
        "weights",
        "{} is a PyTorch file, which does not say what network it is for; make a complete one of it with "
        "`limbeck import {} --model NETWORK -o FILE.safetensors`",
        name, name);
  }
  const SafetensorsFile file = load_safetensors(loaded.file);
  loaded.card = from_metadata(file.metadata, name);
  nn::StateDict state;
  for (const auto& entry : file.entries) state.emplace(entry.name, entry.tensor);
  const bool in_bytes = models::has_int8_weights(file.metadata);
  if (!in_bytes) loaded.model = make_described(loaded.card.spec, file, name);
  try {
    if (in_bytes) {
      loaded.bytes = nn::from_state(state);
      loaded.model = make_from_bytes(loaded.card.spec, *loaded.bytes);
    } else {
      loaded.model->load_state_dict(state);
    }
  } catch (const Error& e) {
    fail<WeightsError>("weights", "{}: {}", name, e.what());
  }
  loaded.model->eval();
  if (const auto origin = file.metadata.find("imported_from"); origin != file.metadata.end())
    loaded.imported_from = origin->second;
  loaded.ranges = ranges_of(file.metadata, name);
  return loaded;
}

bool describes_itself(const std::filesystem::path& file) {
  return !is_torch_file(file) && inspect_safetensors(file).metadata.contains("model");
}

LoadedModel load_foreign(const std::filesystem::path& file, const ModelCard& card) {
  LoadedModel loaded;
  loaded.file = file;
  loaded.card = card;
  loaded.imported_from = file.filename().string();
  Generator unused;
  loaded.model = models::make_model(card.spec, unused);
  const models::WeightsReport report = models::load_weights(*loaded.model, file);
  if (!report.fresh.empty()) {
    fail<WeightsError>("weights", "{} does not hold a whole {}: {}", file.string(), card.spec.name, report.to_string());
  }
  log_info("{}: {}", file.string(), report.to_string());
  warn_of_other_origin(report.metadata, file.string(), card.spec, card.normalisation);
  loaded.model->eval();
  return loaded;
}

void save_int8(models::Model& model, const std::filesystem::path& path, std::map<std::string, std::string> metadata) {
  metadata["weights"] = "int8";
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : nn::to_state(nn::int8_weights(models::logits_graph(model))))
    tensors.push_back({name, tensor});
  save_safetensors(path, tensors, metadata);
}

Precision usual_precision(const LoadedModel& loaded) { return loaded.bytes ? Precision::kInt8 : Precision::kF32; }

const nn::Calibration& int8_ranges(const LoadedModel& loaded) {
  if (!loaded.ranges) {
    fail<WeightsError>("int8",
                       "{} has no ranges for 8 bits; `limbeck calibrate {} -o FILE.safetensors` writes a file that has",
                       loaded.file.string(), loaded.file.string());
  }
  return *loaded.ranges;
}

ForwardFn network_of(const LoadedModel& loaded, Precision precision) {
  if (precision != Precision::kInt8) {
    if (loaded.bytes)
      log_info("{}: weights in 8 bits; {} computes with what they stand for", loaded.file.string(), name_of(precision));
    return frozen(*loaded.model);
  }
  const nn::Calibration& ranges = int8_ranges(loaded);
  try {
    return frozen_int8(*loaded.model, ranges, loaded.bytes ? &*loaded.bytes : nullptr);
  } catch (const ConfigError&) {
    throw;
  } catch (const Error& e) {
    fail<WeightsError>("int8", "{}: {}", loaded.file.string(), e.what());
  }
}

namespace {

constexpr int kRangesVersion = 1;

}  // namespace

std::string to_json(const nn::Calibration& ranges) {
  std::vector<std::string> scales;
  std::vector<std::int64_t> zeros;
  for (const ops::Quantisation& q : ranges.values) {
    scales.push_back(fmt::format("{}", q.scale));
    zeros.push_back(q.zero);
  }
  return JsonObject()
      .add("version", kRangesVersion)
      .add("pictures", ranges.pictures)
      .add("graph", ranges.checksum)
      .add_raw("scale", json_array(scales))
      .add("zero", std::span<const std::int64_t>(zeros))
      .str();
}

std::optional<nn::Calibration> ranges_of(const std::map<std::string, std::string>& metadata, const std::string& file) {
  const auto entry = metadata.find("int8");
  if (entry == metadata.end()) return std::nullopt;
  nn::Calibration ranges;
  try {
    const auto json = nlohmann::json::parse(entry->second);
    if (const int version = json.at("version").get<int>(); version != kRangesVersion) {
      fail<WeightsError>("weights",
                         "{}: metadata 'int8' has version {}, this program reads {}; calibrate the network again", file,
                         version, kRangesVersion);
    }
    ranges.pictures = json.at("pictures").get<std::int64_t>();
    ranges.checksum = json.at("graph").get<std::uint32_t>();
    const auto scales = json.at("scale").get<std::vector<float>>();
    const auto zeros = json.at("zero").get<std::vector<std::int32_t>>();
    if (scales.size() != zeros.size()) {
      fail<WeightsError>("weights", "{}: metadata 'int8' has {} scales and {} zeros", file, scales.size(),
                         zeros.size());
    }
    for (std::size_t i = 0; i < scales.size(); ++i) {
      ranges.values.push_back({scales[i], zeros[i]});
      ops::check_quantisation("int8", ranges.values.back());
    }
  } catch (const nlohmann::json::exception& e) {
    fail<WeightsError>("weights", "{}: metadata 'int8' is malformed: {}", file, e.what());
  } catch (const WeightsError&) {
    throw;
  } catch (const Error& e) {
    fail<WeightsError>("weights", "{}: metadata 'int8': {}", file, e.what());
  }
  return ranges;
}

}  // namespace limbeck::apps
