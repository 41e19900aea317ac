// What this is: networks of the zoo in eval mode whose batch norms have statistics of their own, so that folding them matters.
#pragma once

#include <memory>
#include <string>

#include "core/rng.h"
#include "models/zoo.h"
#include "nn/layers.h"

namespace limbeck::test {

inline std::shared_ptr<models::Model> random_network(const models::ModelSpec& spec, std::uint64_t seed = 7) {
  Generator g(seed);
  auto model = models::make_model(spec, g);
  for (const auto& m : model->named_modules()) {
    if (const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(m.module)) {
      const NoGradGuard off;
      fill_uniform_(bn->weight(), g, 0.6, 1.2);
      fill_normal_(bn->bias(), g, 0.0, 0.1);
      fill_normal_(bn->running_mean(), g, 0.0, 0.1);
      fill_uniform_(bn->running_var(), g, 0.7, 1.5);
    }
  }
  model->eval();
  return model;
}

/// The network called `name`, narrow where it can be.
inline std::shared_ptr<models::Model> random_network(const std::string& name, std::uint64_t seed = 7) {
  models::ModelSpec spec{.name = name, .classes = 5};
  if (name.find("mobilenet") != std::string::npos) spec.width = 0.35;
  return random_network(spec, seed);
}

}  // namespace limbeck::test
