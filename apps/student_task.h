// What this is: the task of `train` and `distill`: a segmentation network, with or without a teacher, scored by its mIoU.
// Read next: distill/distiller.h (the objective), evaluate.h (the score).
#pragma once

#include <memory>

#include "apps/settings.h"
#include "apps/task.h"
#include "datasets/dataset.h"

namespace limbeck::apps {

class StudentTask : public Task {
 public:
  StudentTask(Settings settings, std::shared_ptr<distill::Distiller> distiller,
              std::shared_ptr<const datasets::Dataset> val);

  [[nodiscard]] nn::Module& trained() override { return *distiller_; }
  [[nodiscard]] nn::Module& result() override { return distiller_->student(); }
  [[nodiscard]] std::string result_prefix() const override { return "student."; }
  [[nodiscard]] std::map<std::string, std::string> metadata() const override;
  [[nodiscard]] distill::Objective forward(const Tensor& images, const Tensor& labels, std::int64_t step,
                                           std::int64_t total) override {
    return distiller_->forward(images, labels, step, total);
  }
  [[nodiscard]] std::string phase(std::int64_t step, std::int64_t total) const override {
    return distiller_->phase(step, total);
  }
  [[nodiscard]] double weight_of(std::size_t id, std::int64_t step, std::int64_t total) const override {
    return distiller_->weight_of(id, step, total);
  }
  void set_steps_per_epoch(double steps) override { distiller_->set_steps_per_epoch(steps); }
  void after_step(std::int64_t step, std::int64_t total) override { distiller_->after_step(step, total); }
  [[nodiscard]] std::string score_name() const override { return "miou"; }
  [[nodiscard]] Score validate(const std::filesystem::path& pictures) override;
  [[nodiscard]] std::vector<std::string> describe() const override { return distiller_->describe(); }
  void add_facts(JsonObject& facts) const override;

  /// Scores the student as it is now on any data set.
  [[nodiscard]] Evaluation evaluate_on(const datasets::Dataset& dataset, const PredictionHook& hook = {}) {
    return evaluate(distiller_->student(), dataset, inference_options(), 0, hook);
  }
  /// How the student is scored: size and scaling of its input, the final resize.
  [[nodiscard]] InferenceOptions inference_options() const {
    return evaluation_options(settings_.data, settings_.train.align_corners);
  }

 protected:
  [[nodiscard]] const Settings& settings() const noexcept { return settings_; }
  [[nodiscard]] const datasets::Dataset& val() const noexcept { return *val_; }
  [[nodiscard]] distill::Distiller& distiller() noexcept { return *distiller_; }

 private:
  void write_picture(const std::filesystem::path& file, const datasets::Sample& sample,
                     const datasets::Mask& predicted);

  Settings settings_;
  std::shared_ptr<distill::Distiller> distiller_;
  std::shared_ptr<const datasets::Dataset> val_;
};

}  // namespace limbeck::apps
