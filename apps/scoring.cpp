#include "apps/scoring.h"

#include "apps/model_io.h"
#include "core/json.h"

namespace limbeck::apps {

ScoredModel score_model(const std::filesystem::path& model, const DataSettings& data, bool bf16,
                        const ProtocolArgs& protocol_args) {
  const LoadedModel loaded = load_model(model);
  const auto dataset = datasets::make_dataset(data.val);
  if (dataset->classes().count() != loaded.card.spec.classes) {
    fail<WeightsError>("eval", "{} has {} classes, the data set {}", loaded.file.string(), loaded.card.spec.classes,
                       dataset->classes().count());
  }
  InferenceOptions options = evaluation_options(data, loaded.card.align_corners);
  options.normalisation = parse_normalisation(loaded.card.normalisation);
  options.bf16 = bf16;
  read_protocol(protocol_args, options);
  Evaluation e = evaluate(*loaded.model, *dataset, options);
  const std::string protocol = fmt::format("{} {}, {}", data.val.kind, data.val.split, e.protocol);
  return {loaded.file, dataset->classes(), std::move(e), protocol};
}

std::string ScoredModel::json() const {
  const datasets::Metrics& m = evaluation.metrics;
  JsonObject per_class;
  for (std::size_t k = 0; k < m.iou.size(); ++k) per_class.add(classes.names[k], 100 * m.iou[k]);  // null for an absent class
  return JsonObject()
      .add("model", file.string())
      .add("miou", 100 * m.miou)
      .add("per_class_iou", per_class)
      .add("pixel_acc", 100 * m.pixel_accuracy)
      .add("mean_acc", 100 * m.mean_class_accuracy)
      .add("fw_iou", 100 * m.weighted_iou)
      .add("classes_averaged", m.classes_averaged)
      .add("images", evaluation.images)
      .add("seconds", evaluation.seconds)
      .add("protocol", protocol)
      .str();
}

}  // namespace limbeck::apps
