// What this is: the feature autoencoder of knowledge adaptation (KA): a teacher's feature map is squeezed into a code that
//   the student can match; the decoder exists only while the autoencoder is trained.
// What it is not: its loss or the adaptation losses (distill/), or the student's adapters (models/connectors.h).
// Read next: models/autoencoder.cpp.
//
// Note [two forms]
//   paper           strided: s1 s2 s3 = stride of the student's map / stride of the teacher's map, so code and student map
//                   meet at one size. Three convolutions, each with batch norm and ReLU (the code is not negative, like the
//                   ReLU output of the student's adapter); the decoder mirrors them and its last layer is linear, with bias.
//   released-code   the form of torchdistill's configuration of KA: all strides 1, biases, LeakyReLU(0.1) behind every
//                   batch norm, also behind the decoder's last layer.
//   Widths are the same: channels -> channels -> code -> code and back. The paper gives neither widths nor strides.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "nn/layers.h"

namespace limbeck::models {

struct AutoencoderOptions {
  std::int64_t channels = 256;  ///< of the teacher's map
  std::int64_t code = 0;        ///< channels of the code; 0: half of `channels`
  std::array<std::int64_t, 3> strides{1, 1, 1};
  bool released_code = false;  ///< see Note [two forms]
  nn::BatchNormArgs bn = {};

  [[nodiscard]] std::int64_t code_channels() const noexcept { return code > 0 ? code : channels / 2; }
};

/// Strides of the encoder for a student whose map is `ratio` times coarser than the teacher's: 1 -> (1,1,1), 2 -> (2,1,1),
/// 4 -> (2,2,1), 8 -> (2,2,2).
/// Shapes: none
/// Throws: ConfigError for another ratio.
[[nodiscard]] std::array<std::int64_t, 3> autoencoder_strides(std::int64_t ratio);

/// A (possibly transposed) 3x3 convolution, its batch norm and activation, as in one row of the table of stages.
/// Source: the layers of Note [two forms]
struct CodeStage {
  std::int64_t in, out, stride;
};

/// E: the teacher's map to the code.
/// Formula: code = a3(bn(w3 * a2(bn(w2 * a1(bn(w1 * x)))))), a = ReLU, or LeakyReLU(0.1) in the released-code form
/// Shapes:  x [N, channels, H, W]; returns [N, code, h, w], each axis divided by every stride in turn, rounded up
/// Source:  He et al., CVPR 2019, section 3.2. Names: 0.0 (convolution), 0.1 (batch norm), 1.0, ...
class FeatureEncoder final : public nn::UnaryModule {
 public:
  FeatureEncoder(const AutoencoderOptions& options, Generator& generator);
  [[nodiscard]] std::string type() const override { return "FeatureEncoder"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  [[nodiscard]] const AutoencoderOptions& options() const noexcept { return options_; }

 private:
  struct Layer {
    Layer(const AutoencoderOptions& options, const CodeStage& stage, Generator& generator);
    nn::Conv2d conv;
    nn::BatchNorm2d bn;
  };
  AutoencoderOptions options_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

/// D: the code back to a map of a given size.
/// Shapes: code [N, code, h, w]; returns [N, channels, H, W] for size = {H, W}
/// Throws: a size that the encoder does not map to h, w.
/// Source: as FeatureEncoder
class FeatureDecoder final : public nn::Module {
 public:
  FeatureDecoder(const AutoencoderOptions& options, Generator& generator);
  [[nodiscard]] std::string type() const override { return "FeatureDecoder"; }
  [[nodiscard]] Tensor forward(const Tensor& code, std::array<std::int64_t, 2> size);

 private:
  struct Layer {
    Layer(const AutoencoderOptions& options, const CodeStage& stage, bool last, Generator& generator);
    nn::ConvTranspose2d conv;
    std::optional<nn::BatchNorm2d> bn;  ///< none behind the last layer of the paper's form
  };
  AutoencoderOptions options_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

/// Encoder and decoder, under the names "encoder" and "decoder".
/// Formula: map = D(E(x)), code = E(x)
/// Shapes:  x [N, channels, H, W]; map like x for any H and W; code see FeatureEncoder
/// Source:  He et al., CVPR 2019, equation 1
class Autoencoder final : public nn::Module {
 public:
  struct Result {
    Tensor code;
    Tensor map;
  };
  explicit Autoencoder(const AutoencoderOptions& options, Generator& generator);
  [[nodiscard]] std::string type() const override { return "Autoencoder"; }
  [[nodiscard]] Result forward(const Tensor& x);
  [[nodiscard]] Tensor encode(const Tensor& x) { return encoder_(x); }
  /// Shapes: code [N, code, h, w]; returns [N, channels, size]
  [[nodiscard]] Tensor decode(const Tensor& code, std::array<std::int64_t, 2> size) {
    return decoder_.forward(code, size);
  }
  [[nodiscard]] FeatureEncoder& encoder() noexcept { return encoder_; }
  [[nodiscard]] FeatureDecoder& decoder() noexcept { return decoder_; }
  [[nodiscard]] const AutoencoderOptions& options() const noexcept { return encoder_.options(); }

 private:
  FeatureEncoder encoder_;
  FeatureDecoder decoder_;
};

/// The options as texts for the metadata of a weight file, which save_autoencoder() writes and the readers below read.
/// Shapes: none
[[nodiscard]] std::map<std::string, std::string> options_to_metadata(const AutoencoderOptions& options);

/// Writes weights and options as safetensors; `metadata` may add entries such as the teacher's name and tap.
/// Shapes: those of the autoencoder
/// Throws: Error naming path and reason.
void save_autoencoder(const Autoencoder& autoencoder, const std::filesystem::path& path,
                      const std::map<std::string, std::string>& metadata = {});

/// What a file of save_autoencoder() says about its autoencoder. A folder stands for its model.safetensors.
/// Shapes: none
/// Throws: WeightsError if it does not say, or says something that cannot be.
[[nodiscard]] AutoencoderOptions read_autoencoder_options(const std::filesystem::path& path);

/// The autoencoder, or its encoder alone, of a file of save_autoencoder().
/// Shapes: those of the file
/// Throws: WeightsError if names or shapes do not fit the options in the file.
[[nodiscard]] std::shared_ptr<Autoencoder> load_autoencoder(const std::filesystem::path& path);
[[nodiscard]] std::shared_ptr<FeatureEncoder> load_encoder(const std::filesystem::path& path);

}  // namespace limbeck::models
