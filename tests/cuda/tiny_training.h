// What this is: the small training that tests on a GPU do.
#pragma once

#include <initializer_list>
#include <vector>

#include "core/config.h"
#include "distill/distiller.h"
#include "models/zoo.h"

namespace limbeck::test {

struct Outcome {
  std::vector<double> losses;
  std::vector<double> gradients;  // all of the first step, one after the other
  std::vector<double> weights;    // of the first layer at the end
};

[[nodiscard]] inline models::ModelSpec tiny_network(double width) {
  models::ModelSpec spec;
  spec.name = "mobilenet_v2_seg";
  spec.classes = 5;
  spec.width = width;
  return spec;
}

[[nodiscard]] inline std::vector<distill::Term> terms_of(std::initializer_list<const char*> losses) {
  std::vector<distill::Term> terms;
  for (const char* yaml : losses) {
    const Config config = Config::parse(yaml, "test");
    distill::Term& term = terms.emplace_back();
    term.name = config.get<std::string>("loss");
    term.loss = distill::make_loss(config);
  }
  return terms;
}

inline constexpr const char* kChannelKd = "{loss: channel_kd, tau: 4}";
inline constexpr const char* kPixelKd = "{loss: pixel_kd, reduction: per_pixel}";

}  // namespace limbeck::test
