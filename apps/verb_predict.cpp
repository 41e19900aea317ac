// The verb `predict`: index masks and overlays of image files.
#include <filesystem>
#include <set>

#include "apps/cli.h"
#include "apps/evaluate.h"
#include "apps/model_io.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/compose.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "nn/module.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> collect(const std::vector<std::string>& arguments) {
  std::vector<fs::path> files;
  for (const auto& a : arguments) {
    if (fs::is_directory(a)) {
      const auto inside = datasets::list_images(a);
      if (inside.empty()) fail<DataError>("predict", "the folder {} holds no .png, .jpg or .jpeg file", a);
      files.insert(files.end(), inside.begin(), inside.end());
    } else {
      files.emplace_back(a);
    }
  }
  return files;
}

}  // namespace

int run_predict(const PredictArgs& args) {
  if (args.out.empty()) fail<ConfigError>("predict", "--out is missing: the folder for the masks");
  const nn::ParameterDevice parameters(open_device(args.device));
  const LoadedModel loaded = load_model(args.model);
  if (models::is_classification(loaded.card.spec.name)) {
    fail<ConfigError>("predict", "{} holds a {}, which classifies whole pictures; predict paints masks", loaded.file.string(),
                      loaded.card.spec.name);
  }
  const auto files = collect(args.images);
  std::error_code error;
  fs::create_directories(args.out, error);
  if (error) fail("predict", "cannot create {}: {}", args.out, error.message());
  InferenceOptions options;
  options.normalisation = datasets::Normalisation::parse(loaded.card.normalisation);
  options.align_corners = loaded.card.align_corners;

  const auto& classes = loaded.card.classes;
  std::set<std::string> used;  // two inputs of the same name must not overwrite each other
  Progress progress("predict", static_cast<std::int64_t>(files.size()));
  const double start = monotonic_seconds();
  std::vector<std::string> lines;
  for (const auto& file : files) {
    const datasets::Image image = datasets::read_image(file);
    const datasets::Mask mask = predict_mask(*loaded.model, image, options);
    std::string stem = file.stem().string();
    for (int k = 2; !used.insert(stem).second; ++k) stem = fmt::format("{}_{}", file.stem().string(), k);
    const fs::path mask_file = fs::path(args.out) / (stem + ".png");
    const fs::path overlay_file = fs::path(args.out) / (stem + "_overlay.png");
    datasets::write_mask(mask_file, mask, classes.palette);
    datasets::write_image(overlay_file, datasets::overlay(image, mask, classes.palette));
    if (args.json) {
      std::vector<double> count(classes.names.size(), 0.0);
      for (const auto id : mask.ids) count[id] += 1;
      JsonObject shares;
      for (std::size_t k = 0; k < count.size(); ++k) {
        if (count[k] > 0) shares.add(classes.names[k], count[k] / static_cast<double>(mask.ids.size()));
      }
      fmt::print("{}\n", JsonObject()
                             .add("image", file.string())
                             .add("mask", mask_file.string())
                             .add("overlay", overlay_file.string())
                             .add("shares", shares)
                             .str());
    }
    progress.advance();
  }
  progress.finish();
  const double seconds = monotonic_seconds() - start;
  log_info("{} images in {} ({:.2f} images/s), masks and overlays in {}", files.size(), format_duration(seconds),
           static_cast<double>(files.size()) / seconds, args.out);
  return 0;
}

}  // namespace limbeck::apps
