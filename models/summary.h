// What this is: the cost of a network as a table and as JSON, without computing anything; `limbeck summary` prints it.
// Read next: nn/tracer.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.h"
#include "nn/tracer.h"

namespace limbeck::models {

struct Summary {
  std::string name;
  Shape input;
  std::vector<Shape> outputs;  ///< logits, then aux if there is one
  std::vector<nn::LayerRecord> layers;
  std::int64_t params = 0;              ///< trainable numbers
  std::int64_t macs = 0;                ///< see Note [MACs] in nn/tracer.h
  std::int64_t buffers = 0;             ///< numbers saved but not trained (running statistics)
  std::int64_t activation_numbers = 0;  ///< sum over the listed layers' outputs
};

/// Builds `spec` on the meta device and traces one eval-mode pass.
/// Shapes: input [N, 3, H, W]
/// Throws: ConfigError from make_model or for another input shape.
[[nodiscard]] Summary summarize(const ModelSpec& spec, const Shape& input);

/// Fixed-width table with a total line; `depth` > 0 sums layers that share the first `depth` parts of their names.
/// Shapes: none
[[nodiscard]] std::string summary_table(const Summary& summary, int depth = 0);

/// {"model", "input", "outputs", "params", "macs", "buffers", "layers": [{"name", "type", "output", "params", "macs"}]}
/// Shapes: none
[[nodiscard]] std::string summary_json(const Summary& summary);

}  // namespace limbeck::models
