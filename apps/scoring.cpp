#include "apps/scoring.h"

#include "apps/model_io.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

/// Percent per class; null for a class that is absent.
JsonObject per_class(const datasets::ClassInfo& classes, const std::vector<double>& shares) {
  JsonObject o;
  for (std::size_t k = 0; k < shares.size(); ++k) o.add(classes.names[k], 100 * shares[k]);
  return o;
}

void add_scores(JsonObject& o, const datasets::ClassInfo& classes, const Evaluation& e) {
  const datasets::Metrics& m = e.metrics;
  o.add("miou", 100 * m.miou)
      .add("per_class_iou", per_class(classes, m.iou))
      .add("pixel_acc", 100 * m.pixel_accuracy)
      .add("mean_acc", 100 * m.mean_class_accuracy)
      .add("fw_iou", 100 * m.weighted_iou)
      .add("classes_averaged", m.classes_averaged);
}

void add_scores(JsonObject& o, const datasets::ClassInfo& classes, const ClassEvaluation& e) {
  o.add("top1", 100 * e.score.top1())
      .add(fmt::format("top{}", e.score.k()), 100 * e.score.topk())
      .add("per_class_acc", per_class(classes, e.score.class_accuracy()));
}

std::string score_text(const datasets::ClassInfo& classes, const Evaluation& e) {
  return datasets::metrics_table(e.metrics, e.matrix, classes);
}

std::string score_text(const datasets::ClassInfo&, const ClassEvaluation& e) {
  return datasets::summary_line(e.score) + "\n";
}

}  // namespace

ScoredModel score_model(const std::filesystem::path& model, const DataSettings& data, std::optional<Precision> wanted,
                        const ProtocolArgs& protocol_args) {
  const LoadedModel loaded = load_model(model);
  const Precision precision = wanted.value_or(usual_precision(loaded));
  const auto dataset = datasets::make_dataset(data.val);
  require_fitting_network(loaded.card.spec.name, dataset->target(), "eval");
  if (dataset->classes().count() != loaded.card.spec.classes) {
    fail<WeightsError>("eval", "{} has {} classes, the data set {}", loaded.file.string(), loaded.card.spec.classes,
                       dataset->classes().count());
  }
  InferenceOptions options = evaluation_options(data, loaded.card.align_corners);
  options.normalisation = parse_normalisation(loaded.card.normalisation);
  options.precision = precision;
  options.device = device_of(*loaded.model);
  read_protocol(protocol_args, options);
  const std::string protocol = fmt::format("{} {}, {}", data.val.kind, data.val.split, protocol_of(options));
  if (dataset->target() == datasets::Target::kImage) {
    if (precision == Precision::kInt8) fail<ConfigError>("eval", "--precision int8 is for segmentation networks");
    return {loaded.file, dataset->classes(), evaluate_classes(*loaded.model, *dataset, options), protocol};
  }
  return {loaded.file, dataset->classes(), evaluate(network_of(loaded, precision), *dataset, options), protocol};
}

std::string ScoredModel::json() const {
  JsonObject o;
  o.add("model", file.string());
  std::visit(
      [&](const auto& e) {
        add_scores(o, classes, e);
        o.add("images", e.images).add("seconds", e.seconds);
      },
      evaluation);
  return o.add("protocol", protocol).str();
}

std::string ScoredModel::text() const {
  return std::visit(
      [&](const auto& e) {
        return fmt::format("{}\n{}protocol: {}\n{} in {} ({:.2f} images/s)\n", file.string(), score_text(classes, e),
                           protocol, format_count(e.images, "image"), format_duration(e.seconds),
                           static_cast<double>(e.images) / e.seconds);
      },
      evaluation);
}

}  // namespace limbeck::apps
