// What this is: networks without memory, for tests of names, shapes and costs.
#pragma once

#include <memory>

#include "core/rng.h"
#include "models/zoo.h"

namespace limbeck::test {

/// The network in eval mode on the meta device: nothing is allocated or computed.
[[nodiscard]] inline std::shared_ptr<models::Model> on_meta(const models::ModelSpec& spec) {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  auto model = models::make_model(spec, g);
  model->eval();
  return model;
}

}  // namespace limbeck::test
