// The smallest network that can be distilled, for tests of objectives.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "models/model.h"
#include "nn/layers.h"
#include "ops/elementwise.h"

namespace limbeck::test {

/// One 3x3 convolution and a ReLU, the tap "features"; then a 1x1 convolution to three classes.
class ToyModel final : public models::Model {
 public:
  explicit ToyModel(std::uint64_t seed, std::int64_t stride = 1, std::int64_t width = 8)
      : generator_(seed),
        width_(width),
        stride_(stride),
        conv_({.in = 3, .out = width, .kernel = 3, .stride = stride, .padding = 1}, generator_),
        head_({.in = width, .out = 3}, generator_) {
    register_module("conv", conv_);
    register_module("head", head_);
    models::ModelSpec spec;
    spec.classes = 3;
    set_spec(spec);
  }
  models::Output forward(const Tensor& x, std::span<const std::string> taps) override {
    models::Output out;
    const Tensor f = ops::relu(conv_(x));
    for (const auto& tap : taps) out.taps[tap] = f;
    out.logits = head_(f);
    return out;
  }
  [[nodiscard]] std::vector<std::string> tap_names() const override { return {"features"}; }
  [[nodiscard]] std::vector<models::TapInfo> tap_infos() const override { return {{"features", width_, stride_}}; }

 private:
  Generator generator_;
  std::int64_t width_, stride_;
  nn::Conv2d conv_, head_;
};

}  // namespace limbeck::test
