// The verb `calibrate`: a trained network with ranges for 8 bits, and what these cost.
#include <algorithm>
#include <filesystem>

#include "apps/calibrate.h"
#include "apps/classify.h"
#include "apps/cli.h"
#include "apps/data_part.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/image_io.h"
#include "models/weights.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLayerPictures = 2;  // for the errors of layers
constexpr std::size_t kLayersShown = 8;

Pictures pictures_of(const datasets::DatasetSpec& spec) {
  const auto dataset = datasets::make_dataset(spec);
  return {fmt::format("{} {}", spec.kind, spec.split), dataset->size(),
          [dataset](std::size_t i) { return dataset->load(i); }, true};
}

Pictures pictures_of(const std::vector<fs::path>& files) {
  return {format_count(files.size(), "file"), files.size(),
          [files](std::size_t i) {
            return datasets::Sample{datasets::read_photo(files[i]), {}, files[i].string()};
          },
          false};
}

/// At most `count`, evenly spread.
std::vector<fs::path> some_of(const std::vector<fs::path>& files, std::size_t count) {
  if (count >= files.size()) return files;
  std::vector<fs::path> some;
  for (std::size_t i = 0; i < count; ++i) some.push_back(files[i * files.size() / count]);
  return some;
}

/// Those that can be read; the others are named in the log.
std::vector<fs::path> readable(const std::vector<fs::path>& files) {
  std::vector<fs::path> good;
  for (const fs::path& file : files) {
    try {
      static_cast<void>(datasets::read_photo(file));
      good.push_back(file);
    } catch (const DataError& e) {
      log_error("{}", e.what());
    }
  }
  return good;
}

/// What the command line and the run's configuration say about pictures.
struct Sources {
  Pictures ranges, scored;
  InferenceOptions options;
  std::size_t files = 0, unreadable = 0;  ///< of --images
};

/// Without a data set, which only image files make possible, the scored pictures are these files.
Sources sources_of(const CalibrateArgs& args, const LoadedModel& loaded) {
  Sources sources;
  sources.options.align_corners = loaded.card.align_corners;
  for (const std::string& assignment : args.overrides) {
    if (assignment.find('=') == std::string::npos) {
      fail<ConfigError>("calibrate", "got '{}', expected KEY=VALUE; every picture needs an --images of its own",
                        assignment);
    }
  }
  std::optional<Config> config;
  try {
    config = stored_config(args, args.model);
  } catch (const ConfigError& e) {
    if (args.images.empty() || !args.config.empty() || !args.split.empty() || !args.overrides.empty()) throw;
    log_info("only the pictures that ranges are found on are compared: {}", e.what());
  }
  if (config) {
    if (!args.split.empty()) config->override_with("data.val_split=" + args.split);
    const DataSettings data = read_data_part(*config, args.overrides);
    sources.scored = pictures_of(data.val);
    const auto dataset = datasets::make_dataset(data.val);
    require_fitting_network(loaded.card.spec.name, dataset->target(), "calibrate");
    if (dataset->classes().count() != loaded.card.spec.classes) {
      fail<WeightsError>("calibrate", "{} has {} classes, the data set {}", loaded.file.string(),
                         loaded.card.spec.classes, dataset->classes().count());
    }
    sources.options = evaluation_options(data, loaded.card.align_corners);
    if (args.images.empty()) sources.ranges = pictures_of(data.train);
  }
  const auto count = static_cast<std::size_t>(args.count);
  if (!args.images.empty()) {
    std::vector<fs::path> files = image_files(args.images, "calibrate");
    if (config) files = some_of(files, count);  // else all of them are scored
    const std::vector<fs::path> good = readable(files);
    sources.files = files.size();
    sources.unreadable = files.size() - good.size();
    if (good.empty()) fail_unreadable("calibrate", sources.unreadable, sources.files);
    sources.ranges = pictures_of(good);
  }
  if (!config) sources.scored = sources.ranges;
  sources.options.normalisation = parse_normalisation(loaded.card.normalisation);
  sources.ranges = spread(sources.ranges, count);
  return sources;
}

std::vector<LayerError> worst_of(std::vector<LayerError> errors) {
  std::stable_sort(errors.begin(), errors.end(), [](const auto& a, const auto& b) { return a.error > b.error; });
  errors.resize(std::min(errors.size(), kLayersShown));
  return errors;
}

std::string text_of(const CalibrateArgs& args, const Sources& sources, const std::vector<PrecisionScore>& scores,
                    const std::vector<LayerError>& worst) {
  std::string text =
      fmt::format("{}: {}, with ranges found on {} ({})\n\n", args.out, format_bytes(fs::file_size(args.out)),
                  format_count(sources.ranges.count, "picture"), sources.ranges.name);
  text += fmt::format("{:<10} {:>7} {:>7} {:>14} {:>12}\n", "precision", "mIoU", "cost", "class of f32", "ms/picture");
  for (const PrecisionScore& s : scores) {
    const bool labelled = sources.scored.labelled, first = s.precision == Precision::kF32;
    text += fmt::format(
        "{:<10} {:>7} {:>7} {:>12.2f} % {:>12.1f}\n", name_of(s.precision),
        labelled ? fmt::format("{:.2f}", 100 * s.metrics.miou) : "-",
        labelled && !first ? fmt::format("{:+.2f}", 100 * (s.metrics.miou - scores.front().metrics.miou)) : "-",
        100 * s.agreement, 1e3 * s.seconds);
  }
  text +=
      fmt::format("\non {} of {}; {}\n\nlayers with the largest error in int8, that of the layers before included:\n",
                  format_count(sources.scored.count, "picture"), sources.scored.name, view_of(sources.options));
  for (const LayerError& e : worst)
    text += fmt::format("{:>7.2f} % {:>7.2f} ms  {}  {}\n", 100 * e.error, e.milliseconds, e.name, e.what);
  return text;
}

std::string json_of(const CalibrateArgs& args, const Sources& sources, const std::vector<PrecisionScore>& scores,
                    const std::vector<LayerError>& worst) {
  JsonObject o;
  o.add("file", args.out).add("bytes", static_cast<std::int64_t>(fs::file_size(args.out)));
  o.add("calibration", sources.ranges.name).add("calibration_pictures", sources.ranges.count);
  o.add("unreadable", sources.unreadable);
  o.add("scored", sources.scored.name).add("pictures", sources.scored.count);
  for (const PrecisionScore& s : scores) {
    JsonObject each;
    if (sources.scored.labelled) each.add("miou", 100 * s.metrics.miou);
    o.add(name_of(s.precision), each.add("agreement", s.agreement).add("seconds", s.seconds));
  }
  if (sources.scored.labelled) o.add("cost", 100 * (scores.front().metrics.miou - scores.back().metrics.miou));
  std::vector<std::string> layers;
  for (const LayerError& e : worst) {
    layers.push_back(
        JsonObject().add("name", e.name).add("what", e.what).add("error", e.error).add("ms", e.milliseconds).str());
  }
  return o.add_raw("worst_layers", json_array(layers)).add("protocol", view_of(sources.options)).str();
}

}  // namespace

int run_calibrate(const CalibrateArgs& args) {
  if (args.out.empty()) fail<ConfigError>("calibrate", "--out is missing: the .safetensors file to write");
  if (fs::path(args.out).extension() != ".safetensors")
    fail<ConfigError>("calibrate", "--out {}, expected a name that ends with .safetensors", args.out);
  const LoadedModel loaded = load_model(args.model);
  if (models::is_classification(loaded.card.spec.name)) {
    fail<ConfigError>("calibrate", "{} classifies whole pictures; int8 is for segmentation networks",
                      loaded.card.spec.name);
  }
  const Sources sources = sources_of(args, loaded);
  auto metadata = to_metadata(loaded.card);
  metadata["int8"] = to_json(find_ranges(*loaded.model, sources.ranges, sources.options));
  if (args.pack) {
    metadata["aux"] = "false";  // its weights are not in the file
    save_int8(*loaded.model, args.out, metadata);
  } else {
    models::save_weights(*loaded.model, args.out, metadata);
  }

  // What counts is what the file gives in 8 bits, against what the network gives without.
  LoadedModel written = load_model(args.out);
  written.model = loaded.model;
  const auto scores = compare_precisions(written, sources.scored, sources.options);
  const auto worst =
      worst_of(layer_errors(*written.model, *written.ranges, spread(sources.ranges, kLayerPictures), sources.options));
  fmt::print("{}", args.json ? json_of(args, sources, scores, worst) + "\n" : text_of(args, sources, scores, worst));
  if (sources.unreadable > 0) fail_unreadable("calibrate", sources.unreadable, sources.files);
  return 0;
}

}  // namespace limbeck::apps
