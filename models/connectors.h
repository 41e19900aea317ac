// What this is: small trained modules between a student's feature and what a teacher offers: 1x1 and 3x3 connectors, the
//   adapters of the KA study, the channel MLP. They are thrown away after training.
// What it is not: the losses behind them (distill/).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nn/fused.h"
#include "nn/layers.h"

namespace limbeck::models {

struct ConnectorArgs {
  std::int64_t in = 0;      ///< channels of the student's map
  std::int64_t out = 0;     ///< channels that the loss expects
  std::int64_t kernel = 1;  ///< odd; padding keeps the size
  bool batch_norm = false;
  bool relu = false;
  bool bias = false;  ///< of the convolution; not together with batch norm
  nn::BatchNormArgs bn = {};
  nn::Init init = nn::Init::kDefault;
};

/// A convolution, optionally batch norm and ReLU.
/// Formula: y = relu(bn(w * x + b)), each part as the arguments say
/// Shapes:  x [N, in, H, W]; returns [N, out, H, W]
/// Throws:  ConfigError for an even kernel, or a bias in front of batch norm, which would have no effect.
/// Source:  FitNets (Romero et al., ICLR 2015), section 2.2. Names: 0 (convolution), 1 (batch norm)
class Connector final : public nn::UnaryModule {
 public:
  Connector(const ConnectorArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "Connector"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  nn::Conv2d conv_;
  std::optional<nn::BatchNorm2d> bn_;
  bool relu_;
};

/// C_f of the KA study, for the adaptation loss: 3x3 without bias, batch norm, ReLU.
/// Shapes: none
/// Source: He et al., CVPR 2019, section 3.2
[[nodiscard]] ConnectorArgs ka_feature_adapter(std::int64_t in, std::int64_t out);

/// C_a of the KA study, for the affinity loss: 3x3 with bias. The paper only says "adapter"; this is torchdistill's.
/// Shapes: none
/// Source: He et al., CVPR 2019, section 3.3
[[nodiscard]] ConnectorArgs ka_affinity_adapter(std::int64_t in, std::int64_t out);

/// The adapter of channel-wise distillation on features: 1x1 without bias, batch norm, ReLU.
/// Shapes: none
/// Source: the released code of Shu et al., ICCV 2021
[[nodiscard]] ConnectorArgs cwd_feature_adapter(std::int64_t in, std::int64_t out);

struct ChannelMlpArgs {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t hidden = 0;  ///< 0: `out`
  std::int64_t kernel = 1;  ///< 3: the generation block of masked generative distillation
};

/// A perceptron with one hidden layer over the channels of every pixel.
/// Formula: y = W2 relu(W1 x + b1) + b2
/// Shapes:  x [N, in, H, W]; returns [N, out, H, W]
/// Throws:  ConfigError for an even kernel.
/// Source:  Liu et al., ICCVW 2023 (arXiv 2303.13212); kernel 3: Yang et al., ECCV 2022. Names: 0 (W1, b1), 2 (W2, b2)
class ChannelMlp final : public nn::UnaryModule {
 public:
  ChannelMlp(const ChannelMlpArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "ChannelMlp"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  nn::Conv2d first_;
  nn::Conv2d second_;
};

}  // namespace limbeck::models
