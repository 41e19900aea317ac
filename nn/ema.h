// What this is: a running average of a model's weights, often better on validation than the weights themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/module.h"
#include "nn/multi_tensor.h"

namespace limbeck::nn {

struct EmaOptions {
  double decay = 0.999;
  /// Use min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ..., so that the first random weights are soon forgotten.
  bool ramp = true;
};

/// Exponential moving average of all floating parameters and buffers of a model.
/// Formula: a = d * a + (1 - d) * w after every optimizer step; integer buffers are copied
/// Shapes:  those of the model; f32 or f64
/// Throws:  decay outside [0, 1).
/// Source:  ramp: tf.train.ExponentialMovingAverage with num_updates
class Ema {
 public:
  /// Starts as a copy of the model. The model must outlive this object and must not be converted to another type.
  explicit Ema(Module& model, EmaOptions options = {});

  /// A step that is recorded (core/step_graph.h) may do it: a replay takes the decay of its own step.
  void update();
  [[nodiscard]] std::int64_t updates() const noexcept { return updates_; }
  /// Decay that the next update will use.
  [[nodiscard]] double decay() const noexcept { return decay_at(updates_); }

  /// The averages under the model's names, and "updates" (i64 [1]). Shares memory with this object.
  [[nodiscard]] StateDict state_dict() const;
  /// Exact restore. Throws WeightsError for missing, unexpected or misshapen entries.
  void load_state_dict(const StateDict& state);
  /// The averages alone, e.g. to write them as a model file.
  [[nodiscard]] StateDict averages() const;

 private:
  friend class EmaScope;
  [[nodiscard]] double decay_at(std::int64_t updates) const noexcept;
  void swap();
  void update_on_device();
  void copy_counters();

  EmaOptions options_;
  std::vector<std::string> names_;
  std::vector<Tensor> live_;  // the model's own tensors
  std::vector<Tensor> average_;
  std::vector<Chunk> chunks_;
  std::int64_t updates_ = 0;
};

/// While alive, the model holds the averages; afterwards its own values are back, bit for bit. For evaluation.
class EmaScope {
 public:
  explicit EmaScope(Ema& ema) : ema_(ema) { ema_.swap(); }
  EmaScope(const EmaScope&) = delete;
  EmaScope& operator=(const EmaScope&) = delete;
  ~EmaScope() { ema_.swap(); }

 private:
  Ema& ema_;
};

}  // namespace limbeck::nn
