#include "apps/student_task.h"

#include <utility>

#include "apps/model_io.h"
#include "core/log.h"
#include "datasets/compose.h"
#include "datasets/image_io.h"

namespace limbeck::apps {

StudentTask::StudentTask(Settings settings, std::shared_ptr<distill::Distiller> distiller,
                         std::shared_ptr<const datasets::Dataset> val)
    : settings_(std::move(settings)), distiller_(std::move(distiller)), val_(std::move(val)) {}

std::map<std::string, std::string> StudentTask::metadata() const {
  ModelCard card;
  card.spec = settings_.model.spec;
  card.classes = val_->classes();
  card.normalisation = settings_.data.normalisation;
  card.align_corners = settings_.train.align_corners;
  return to_metadata(card);
}

void StudentTask::write_picture(const std::filesystem::path& file, const datasets::Sample& sample,
                                const datasets::Mask& predicted) {
  const auto& palette = val_->classes().palette;
  std::vector<datasets::Panel> panels{{sample.image, "image"},
                                      {datasets::overlay(sample.image, sample.mask, palette), "truth"}};
  if (auto* teacher = distiller_->teacher()) {
    const EvalMode mode(*teacher);
    const auto mask = predict_mask(*teacher, sample.image, inference_options());
    panels.push_back({datasets::overlay(sample.image, mask, palette), "teacher"});
  }
  panels.push_back({datasets::overlay(sample.image, predicted, palette), "prediction"});
  panels.push_back({datasets::error_map(sample.mask, predicted, palette), "wrong pixels"});
  datasets::write_image(file, datasets::side_by_side(panels, static_cast<int>(panels.size())));
}

Score StudentTask::validate(const std::filesystem::path& pictures) {
  const auto hook = [&](std::size_t i, const datasets::Sample& sample,
                        const std::function<datasets::Mask()>& predicted) {
    if (pictures.empty() || i >= static_cast<std::size_t>(settings_.train.pictures)) return;
    write_picture(pictures / fmt::format("val_{:03}.png", i), sample, predicted());
  };
  Evaluation e = evaluate(distiller_->student(), *val_, inference_options(), 0, hook);
  Score score;
  score.value = 100 * e.metrics.miou;
  score.summary = datasets::summary_line(e.metrics);
  std::vector<double> iou;
  for (const double v : e.metrics.iou) iou.push_back(100 * v);
  score.metrics.add("val_miou", score.value).add("val_pixel_acc", 100 * e.metrics.pixel_accuracy);
  score.metrics.add("val_per_class_iou", std::span<const double>(iou));
  score.evaluation = std::move(e);
  return score;
}

void StudentTask::add_facts(JsonObject& facts) const {
  facts.add("model", settings_.model.spec.name).add("parameters", distiller_->student().parameter_count());
  facts.add("validation", protocol_of(inference_options()));
}

}  // namespace limbeck::apps
