// What this is: networks without memory, for tests of names, shapes and costs.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "models/zoo.h"
#include "nn/layers.h"

namespace limbeck::test {

/// The network in eval mode on the meta device: nothing is allocated or computed.
[[nodiscard]] inline std::shared_ptr<models::Model> on_meta(const models::ModelSpec& spec) {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  auto model = models::make_model(spec, g);
  model->eval();
  return model;
}

/// Of every 3x3 convolution whose name contains `part`, in order.
[[nodiscard]] inline std::vector<std::int64_t> dilations(models::Model& model, const std::string& part) {
  std::vector<std::int64_t> out;
  for (const auto& m : model.named_modules()) {
    const auto* conv = dynamic_cast<const nn::Conv2d*>(m.module);
    if (conv == nullptr || conv->weight().size(2) != 3 || m.name.find(part) == std::string::npos) continue;
    CHECK(conv->options().padding == conv->options().dilation);
    out.push_back(conv->options().dilation[0]);
  }
  return out;
}

}  // namespace limbeck::test
