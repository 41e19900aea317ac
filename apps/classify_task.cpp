#include "apps/classify_task.h"

#include "core/log.h"
#include "datasets/compose.h"
#include "datasets/image_io.h"

namespace limbeck::apps {

Score ClassifyTask::validate(const std::filesystem::path& pictures) {
  const auto& names = val().classes().names;
  const auto name_of = [&](std::int64_t k) { return names[static_cast<std::size_t>(k)]; };
  // Evenly spread: the first pictures are all of one class.
  const auto wanted = static_cast<std::size_t>(settings().train.pictures);
  const std::size_t stride = std::max<std::size_t>(1, val().size() / std::max<std::size_t>(1, wanted));
  const auto hook = [&](std::size_t i, const datasets::Sample& sample, std::int64_t predicted) {
    if (pictures.empty() || i % stride != 0 || i / stride >= wanted) return;
    const std::string caption = predicted == sample.label
                                    ? name_of(predicted)
                                    : fmt::format("{} (is {})", name_of(predicted), name_of(sample.label));
    datasets::write_image(pictures / fmt::format("val_{:03}.png", i / stride),
                          datasets::side_by_side({{sample.image, caption}}, 1));
  };
  const ClassEvaluation e = evaluate_classes(distiller().student(), val(), inference_options(), 0, hook);
  Score score;
  score.value = 100 * e.score.top1();
  score.summary = datasets::summary_line(e.score);
  score.metrics.add("val_top1", score.value).add(fmt::format("val_top{}", e.score.k()), 100 * e.score.topk());
  return score;
}

}  // namespace limbeck::apps
