#include "apps/autoencoder_task.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "apps/heat_map.h"
#include "core/autograd.h"
#include "core/log.h"
#include "datasets/compose.h"
#include "datasets/convert.h"
#include "datasets/image_io.h"
#include "distill/ka_autoencoder_loss.h"
#include "distill/teacher_code.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

/// The picture, what the teacher sees in it, what is left of that behind the code, and the difference; one scale for all.
void write_picture(const fs::path& file, const datasets::Image& image, const Tensor& map, const Tensor& restored) {
  const Tensor energy = channel_energy(map);
  const auto values = energy.to_vector<float>();
  const double most = static_cast<double>(*std::max_element(values.begin(), values.end()));
  const auto picture = [&](const Tensor& x) { return heat_map(x, most, image.h, image.w); };
  datasets::write_image(file, datasets::side_by_side({{image, "image"},
                                                      {picture(energy), "tap"},
                                                      {picture(channel_energy(restored)), "restored"},
                                                      {picture(channel_energy(ops::sub(map, restored))), "error"}}));
}

}  // namespace

// --- statistics -----------------------------------------------------------------------------------------------------

void ReconstructionStats::add(const Tensor& map, const Tensor& restored, const Tensor& code) {
  const NoGradGuard off;
  squared_error_ += ops::sum(ops::square(ops::sub(map, restored))).item();
  squares_ += ops::sum(ops::square(map)).item();
  const auto sums = ops::sum(map, {0, 2, 3}).to_vector<float>();
  sums_.resize(sums.size());
  for (std::size_t c = 0; c < sums.size(); ++c) sums_[c] += static_cast<double>(sums[c]);
  numbers_ += map.numel();
  const auto values = code.to_vector<float>();
  code_numbers_ += code.numel();
  code_zeros_ += std::count(values.begin(), values.end(), 0.0F);
}

double ReconstructionStats::error() const { return numbers_ == 0 ? 0 : squared_error_ / static_cast<double>(numbers_); }

double ReconstructionStats::relative_error() const {
  if (numbers_ == 0) return 0;
  const double per_channel = static_cast<double>(numbers_) / static_cast<double>(sums_.size());
  const double around_means =
      squares_ - std::inner_product(sums_.begin(), sums_.end(), sums_.begin(), 0.0) / per_channel;
  return squared_error_ / std::max(around_means, 1e-30);
}

double ReconstructionStats::zeros() const {
  return code_numbers_ == 0 ? 0 : static_cast<double>(code_zeros_) / static_cast<double>(code_numbers_);
}

// --- task -----------------------------------------------------------------------------------------------------------

AutoencoderTask::AutoencoderTask(Settings settings, std::shared_ptr<models::Model> teacher,
                                 std::shared_ptr<models::Autoencoder> autoencoder,
                                 std::shared_ptr<const datasets::Dataset> val)
    : settings_(std::move(settings)),
      teacher_(std::move(teacher)),
      autoencoder_(std::move(autoencoder)),
      val_(std::move(val)) {
  teacher_->freeze();
}

std::map<std::string, std::string> AutoencoderTask::metadata() const {
  auto entries = distill::autoencoder_metadata(*teacher_, settings_.autoencoder.tap);
  entries.merge(models::options_to_metadata(autoencoder_->options()));
  return entries;
}

Tensor AutoencoderTask::tap_of(const Tensor& images) {
  const NoGradGuard off;
  const std::vector<std::string> taps{settings_.autoencoder.tap};
  return teacher_->forward(images, taps).taps.at(taps.front());
}

distill::Objective AutoencoderTask::forward(const Tensor& images, const Tensor& /*labels*/, std::int64_t /*step*/,
                                            std::int64_t /*total*/) {
  const Tensor map = tap_of(images);
  const auto result = autoencoder_->forward(map);
  distill::KaAutoencoderOptions options;
  options.alpha = settings_.autoencoder.alpha;
  options.sum_over_batch = settings_.autoencoder.released_code;
  distill::Objective objective;
  objective.total = distill::ka_autoencoder_loss(result.map, result.code, map, options);
  objective.terms.push_back({"autoencoder", objective.total.detach(), 1.0});
  return objective;
}

Score AutoencoderTask::validate(const fs::path& pictures) {
  const NoGradGuard off;
  const EvalMode mode(*autoencoder_);
  const InferenceOptions options = evaluation_options(settings_.data, false);
  ReconstructionStats stats;
  for (std::size_t i = 0; i < val_->size(); ++i) {
    const datasets::Image image = prepare_sample(val_->load(i), options).image;
    Tensor x = datasets::to_tensor(image, options.normalisation);
    if (options.resize_h > 0) x = ops::resize_bilinear(x, {options.resize_h, options.resize_w}, false);
    const Tensor map = ops::cast(tap_of(x.to(device_of(*teacher_))), DType::kF32);
    const auto result = autoencoder_->forward(map);
    stats.add(map, result.map, result.code);
    if (!pictures.empty() && i < static_cast<std::size_t>(settings_.train.pictures)) {
      write_picture(pictures / fmt::format("val_{:03}.png", i), image, map, result.map);
    }
  }
  Score score;
  score.value = 100 * (1 - stats.relative_error());
  score.summary = fmt::format("reconstruction error {}, {:.2f} % of the tap's variance; {:.1f} % of the code is zero",
                              format_short(stats.error()), 100 * stats.relative_error(), 100 * stats.zeros());
  score.metrics.add("val_explained", score.value).add("val_reconstruction_error", stats.error());
  score.metrics.add("val_relative_error", 100 * stats.relative_error()).add("val_zeros", 100 * stats.zeros());
  return score;
}

std::vector<std::string> AutoencoderTask::describe() const {
  const auto& o = autoencoder_->options();
  return {fmt::format(
      "autoencoder: mean squared error + {} sum |code|{}; teacher '{}', {} channels -> code of {}, strides {}x{}x{}, {}",
      format_short(settings_.autoencoder.alpha), settings_.autoencoder.released_code ? "" : " / N",
      settings_.autoencoder.tap, o.channels, o.code_channels(), o.strides[0], o.strides[1], o.strides[2],
      o.released_code ? "released-code form" : "paper form")};
}

void AutoencoderTask::add_facts(JsonObject& facts) const {
  facts.add("model", "autoencoder").add("parameters", autoencoder_->parameter_count());
  facts.add("teacher", teacher_->spec().name).add("teacher_tap", settings_.autoencoder.tap);
  facts.add("validation", "whole image, reconstruction of the tap");
}

}  // namespace limbeck::apps
