// What this is: the task of `autoencoder`: a code for a tap of a frozen teacher (stage 2 of knowledge adaptation), scored by
//   how much of the tap's variance survives the way through the code.
// Read next: models/autoencoder.h, distill/ka_autoencoder_loss.h.
#pragma once

#include <memory>

#include "apps/settings.h"
#include "apps/task.h"
#include "datasets/dataset.h"
#include "models/autoencoder.h"
#include "models/model.h"

namespace limbeck::apps {

/// How well maps were restored from their codes, over any number of maps.
class ReconstructionStats {
 public:
  /// Shapes: map and restored [N,C,H,W], code [N,D,h,w]; the same C in every call.
  void add(const Tensor& map, const Tensor& restored, const Tensor& code);

  /// Mean squared error.
  [[nodiscard]] double error() const;
  /// The error divided by the map's variance (around the mean of each channel): 0 is perfect, 1 as bad as the means alone.
  [[nodiscard]] double relative_error() const;
  /// Share of the code's numbers that are zero, in [0, 1].
  [[nodiscard]] double zeros() const;

 private:
  double squared_error_ = 0, squares_ = 0;
  std::vector<double> sums_;  // per channel
  std::int64_t numbers_ = 0, code_numbers_ = 0, code_zeros_ = 0;
};

class AutoencoderTask final : public Task {
 public:
  AutoencoderTask(Settings settings, std::shared_ptr<models::Model> teacher,
                  std::shared_ptr<models::Autoencoder> autoencoder, std::shared_ptr<const datasets::Dataset> val);

  [[nodiscard]] nn::Module& trained() override { return *autoencoder_; }
  [[nodiscard]] nn::Module& result() override { return *autoencoder_; }
  [[nodiscard]] std::string result_prefix() const override { return {}; }
  [[nodiscard]] std::map<std::string, std::string> metadata() const override;
  [[nodiscard]] distill::Objective forward(const Tensor& images, const Tensor& labels, std::int64_t step,
                                           std::int64_t total) override;
  [[nodiscard]] std::string score_name() const override { return "explained"; }
  [[nodiscard]] Score validate(const std::filesystem::path& pictures) override;
  [[nodiscard]] std::vector<std::string> describe() const override;
  void add_facts(JsonObject& facts) const override;

 private:
  [[nodiscard]] Tensor tap_of(const Tensor& images);

  Settings settings_;
  std::shared_ptr<models::Model> teacher_;
  std::shared_ptr<models::Autoencoder> autoencoder_;
  std::shared_ptr<const datasets::Dataset> val_;
};

}  // namespace limbeck::apps
