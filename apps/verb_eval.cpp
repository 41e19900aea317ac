// The verb `eval`: scores of a trained network, with the protocol they belong to.
#include <cmath>

#include "apps/cli.h"
#include "apps/evaluate.h"
#include "apps/model_io.h"
#include "apps/settings.h"
#include "core/file_io.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

/// The configuration given with -c, or the one stored in the run folder of the model.
Config config_of(const EvalArgs& args) {
  if (!args.config.empty()) return load_config(args);
  namespace fs = std::filesystem;
  fs::path folder = args.model;
  if (!fs::is_directory(folder)) folder = folder.parent_path();
  for (const fs::path& candidate : {folder / "config.yaml", folder.parent_path() / "config.yaml"}) {
    if (fs::exists(candidate)) {
      CommonArgs stored = args;
      stored.config = candidate.string();
      return load_config(stored);
    }
  }
  fail<ConfigError>("eval", "no data set: {} is not inside a run folder, so give a configuration with -c", args.model);
}

}  // namespace

int run_eval(const EvalArgs& args) {
  Config config = config_of(args);
  if (!args.split.empty()) config.override_with("data.val_split=" + args.split);
  const DataSettings data = read_data(config);
  const LoadedModel loaded = load_model(args.model);
  const auto dataset = datasets::make_dataset(data.val);
  if (dataset->classes().count() != loaded.card.spec.classes) {
    fail<WeightsError>("eval", "{} has {} classes, the data set {}", loaded.file.string(), loaded.card.spec.classes,
                       dataset->classes().count());
  }
  InferenceOptions options = evaluation_options(data, loaded.card.align_corners);
  options.normalisation = parse_normalisation(loaded.card.normalisation);
  options.bf16 = config.has("eval.precision") && config.get<std::string>("eval.precision") == "bf16";
  read_protocol(args.protocol, options);
  const Evaluation e = evaluate(*loaded.model, *dataset, options);
  const std::string protocol = fmt::format("{} {}, {}", data.val.kind, data.val.split, e.protocol);

  if (!args.json) {
    fmt::print("{}\n{}protocol: {}\n{} images in {} ({:.2f} images/s)\n", loaded.file.string(),
               datasets::metrics_table(e.metrics, e.matrix, dataset->classes()), protocol, e.images,
               format_duration(e.seconds), static_cast<double>(e.images) / e.seconds);
  }
  JsonObject per_class;
  for (std::size_t k = 0; k < e.metrics.iou.size(); ++k) {
    per_class.add(dataset->classes().names[k], 100 * e.metrics.iou[k]);  // null for an absent class
  }
  JsonObject result;
  result.add("model", loaded.file.string())
      .add("miou", 100 * e.metrics.miou)
      .add("per_class_iou", per_class)
      .add("pixel_acc", 100 * e.metrics.pixel_accuracy)
      .add("mean_acc", 100 * e.metrics.mean_class_accuracy)
      .add("fw_iou", 100 * e.metrics.weighted_iou)
      .add("classes_averaged", e.metrics.classes_averaged)
      .add("images", e.images)
      .add("seconds", e.seconds)
      .add("protocol", protocol);
  if (args.json) fmt::print("{}\n", result.str());
  if (!args.out.empty()) write_file_atomic(args.out, result.str() + "\n");
  return 0;
}

}  // namespace limbeck::apps
