// What this is: networks of the zoo in eval mode with random weights that react to their input: batch norms have parameters of their own,
//   and the running statistics of a noise picture. With the statistics of a new network the signal of the input fades from block to block,
//   and whatever is compared agrees.
#pragma once

#include <memory>
#include <string>

#include "core/autograd.h"
#include "core/rng.h"
#include "models/frozen_model.h"
#include "models/zoo.h"
#include "nn/graph.h"
#include "nn/layers.h"
#include "tests/harness/random_input.h"

namespace limbeck::test {

inline std::shared_ptr<models::Model> random_network(models::ModelSpec spec, std::uint64_t seed = 7) {
  Generator g(seed);
  spec.bn_momentum = 1.0;  // one pass replaces the running statistics
  auto model = models::make_model(spec, g);
  const NoGradGuard off;
  for (const auto& m : model->named_modules()) {
    if (const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(m.module)) {
      fill_uniform_(bn->weight(), g, 0.6, 1.2);
      fill_normal_(bn->bias(), g, 0.0, 0.3);
    }
  }
  const Tensor noise = Tensor::empty({2, 3, 64, 64});
  fill_normal_(noise, g, 0.0, 1.0);
  model->train();
  static_cast<void>(model->forward(noise));
  model->eval();
  return model;
}

/// The network called `name`, narrow where it can be.
inline std::shared_ptr<models::Model> random_network(const std::string& name, std::uint64_t seed = 7) {
  models::ModelSpec spec{.name = name, .classes = 5};
  if (name.find("mobilenet") != std::string::npos) spec.width = 0.35;
  return random_network(spec, seed);
}

/// The graph from the images to the logits.
inline nn::Graph capture(models::Model& model) { return models::logits_graph(model); }

}  // namespace limbeck::test
