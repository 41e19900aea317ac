// What this is: a network with its card as a file for other programs, and the comparison of such a file with the network.
// Read next: onnx_file.h, verb_export.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "apps/model_io.h"
#include "apps/onnx_file.h"
#include "datasets/dataset.h"

namespace limbeck::apps {

/// What the file returns.
enum class ExportOutput : std::uint8_t {
  kLogits,   ///< scores at the network's stride, [N, K, h, w] (or [N, K])
  kResized,  ///< scores at the size of the input, [N, K, H, W]
  kIds       ///< class ids at the size of the input, i64 [N, H, W] (or [N])
};

struct OnnxExport {
  int opset = kMaxOpset;
  bool fold = true;  ///< batch norm into the convolutions
  std::int64_t batch = 1, height = 256, width = 256;
  bool dynamic_batch = false, dynamic_size = false;
  bool normalise = false;  ///< the file takes RGB values 0..255 and scales them itself
  ExportOutput output = ExportOutput::kResized;
  const nn::Calibration* ranges = nullptr;   ///< for a file in 8 bits: those of the network; batch norm must be folded
  const nn::Int8Weights* filters = nullptr;  ///< in 8 bits: those of a packed file; null: the network's, rounded
  std::map<std::string, std::string> metadata = {};  ///< provenance; the card is added
};

/// "logits", "resized", "ids"; empty: resized, or logits for a classification network.
[[nodiscard]] ExportOutput parse_output(const std::string& text, const models::ModelSpec& spec);
[[nodiscard]] std::string to_string(ExportOutput output);

/// Writes the network. The model must be in eval mode.
void export_onnx(const std::filesystem::path& path, models::Model& model, const ModelCard& card,
                 const OnnxExport& what);

/// Less agreement than this means that the file is another network.
inline constexpr double kRequiredAgreement = 0.9999;
/// Largest difference of the scores, as a share of the largest score. Rounding stays a hundred times below it; agreement alone would
/// not notice wrong numbers in a network that gives one class everywhere.
inline constexpr double kAllowedDifference = 1e-3;
/// In 8 bits a program that adds products in another order now and then rounds to the other one of two steps, and all that follows sees
/// other numbers: as many as half of them behind twenty layers. So the file is compared with the int8 plan, and has to be nearer to it
/// than the network in f32 is, by this share (of roots of mean squares of scores). A network in other numbers is not.
inline constexpr double kAllowedOfInt8 = 0.9;
/// And this share of the pixels has the same class, or as many as keep theirs in 8 bits.
inline constexpr double kRequiredAgreementInt8 = 0.99;

struct Proof {
  std::int64_t images = 0;
  std::int64_t pixels = 0;
  double max_difference = 0;  ///< of the scores
  double max_logit = 0;       ///< to judge it by
  double agreement = 1;       ///< share of pixels with the same largest score
  std::string run_by = "limbeck";
  bool int8 = false;
  double squares = 0;         ///< of the differences of the scores, summed
  double int8_squares = 0;    ///< in 8 bits: of what these change in the scores of the network
  double int8_agreement = 1;  ///< in 8 bits: share of pixels that keep their class
  [[nodiscard]] double required_agreement() const noexcept;
  /// In 8 bits: the difference to the int8 plan over that of the int8 plan to the network.
  [[nodiscard]] double share_of_int8() const noexcept;
  [[nodiscard]] bool passed() const noexcept;
  /// Joins the same over other pictures.
  void add(const Proof& other);
  /// Joins the same over the same pictures, run by something else: the worse numbers count.
  void also(const Proof& other);
};

/// Reads the file back, runs it with limbeck's own kernels on pictures of one size, and compares with the network.
[[nodiscard]] Proof prove_onnx(const std::filesystem::path& path, models::Model& model, const ModelCard& card,
                               const OnnxExport& what, std::span<const datasets::Image> images);

/// The same in ONNX Runtime, as another program would run it; of a file that returns ids the agreement only. Empty, with the reason in
/// `absent`, where it is not installed (onnx_runtime.h).
[[nodiscard]] std::optional<Proof> prove_in_onnx_runtime(const std::filesystem::path& path, models::Model& model,
                                                         const ModelCard& card, const OnnxExport& what,
                                                         std::span<const datasets::Image> images, std::string& absent);

/// Weights alone, under torchvision's names and for its batch norms, which have eps 1e-5: safetensors, or a file for torch.load().
void export_weights(const std::filesystem::path& path, models::Model& model, const ModelCard& card, bool pth);

}  // namespace limbeck::apps
