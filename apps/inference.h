// What this is: from a picture to class ids: input size, scales, flip, sliding window. eval and predict share it, so that a score
//   and a mask mean the same thing.
// What it is not: scoring (evaluate.h).
// Read next: verb_predict.cpp, verb_eval.cpp.
//
// Note [protocol]
//   whole picture   the scores are resized to the picture's size before the argmax
//   scales, flip    the picture is segmented at every scale, and mirrored too; the average of the class probabilities decides.
//                   With one scale and no flip the scores decide, which is the same.
//   tiles           the picture is cut into overlapping tiles of one size (the last of a row or column is moved inside), each is
//                   segmented as above, and where tiles overlap the average decides. Only one row of tiles is held in memory:
//                   K x tile height x picture width numbers, besides the picture and its mask.
//   precision       f32; bf16; int8 for a network with ranges, see `calibrate`
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "datasets/dataset.h"
#include "datasets/metrics.h"
#include "datasets/transforms.h"
#include "models/model.h"
#include "nn/calibration.h"
#include "nn/int8_weights.h"

namespace limbeck::apps {

/// What a network computes in.
enum class Precision : std::uint8_t { kF32, kBF16, kInt8 };
[[nodiscard]] const char* name_of(Precision precision) noexcept;
/// "f32", "bf16" or "int8". Throws ConfigError naming `option`.
[[nodiscard]] Precision parse_precision(const std::string& text, const char* option);

struct InferenceOptions {
  datasets::Normalisation normalisation;
  std::int64_t resize_h = 0, resize_w = 0;  ///< network input size; 0: the picture's own
  std::int64_t short_side = 0;              ///< evaluation: picture and labels get this shorter side; 0: own size
  std::int64_t crop_h = 0, crop_w = 0;      ///< evaluation: then only their middle counts; 0: all of it
  datasets::AbsentClasses absent = datasets::AbsentClasses::kSkip;  ///< evaluation: in the mIoU
  bool align_corners = false;                                       ///< of the final resize of the logits
  Precision precision = Precision::kF32;
  std::vector<double> scales{1.0};      ///< of the network input
  bool flip = false;                    ///< mirrored as well
  std::int64_t tile_h = 0, tile_w = 0;  ///< sliding window; 0: whole picture
  std::int64_t overlap = 0;             ///< pixels that neighbouring tiles share, at least
  Device device = kCpu;  ///< of the network: pictures go there as bytes, everything behind them happens there
};

/// "whole image, own size, single scale, no flip"
[[nodiscard]] std::string view_of(const InferenceOptions& options);
/// "whole image, own size, single scale, no flip, f32"
[[nodiscard]] std::string protocol_of(const InferenceOptions& options);

/// Images [1, 3, h, w] to logits [1, K, h', w'].
using ForwardFn = std::function<Tensor(const Tensor&)>;

/// A model in eval mode for many pictures, as a frozen plan where possible (models/frozen_model.h). Keeps a reference to it; not
/// for use by two threads at once.
[[nodiscard]] ForwardFn frozen(models::Model& model);
/// The same in 8 bits (nn/int8_plan.h), with `weights` in place of the model's rounded ones if given. Keeps the weights, not the model.
/// Throws: ranges or weights of another network, a network that is no graph or not on the CPU.
[[nodiscard]] ForwardFn frozen_int8(models::Model& model, const nn::Calibration& ranges,
                                    const nn::Int8Weights* weights = nullptr);

/// The class of every pixel of a picture of any size, on the device of the network.
/// Shapes:  returns u8 or i64 [1, h, w]
/// Throws: ConfigError for tiles together with an input size.
[[nodiscard]] Tensor predict_ids(const ForwardFn& network, const datasets::Image& image,
                                 const InferenceOptions& options);

/// The same as a mask.
/// Throws: ConfigError for tiles together with an input size.
[[nodiscard]] datasets::Mask predict_mask(const ForwardFn& network, const datasets::Image& image,
                                          const InferenceOptions& options);

/// Where the parameters of a network are.
[[nodiscard]] Device device_of(const nn::Module& model);

/// The same with a model, which must be in eval mode; for a single picture. Many are faster with frozen().
[[nodiscard]] datasets::Mask predict_mask(models::Model& model, const datasets::Image& image,
                                          const InferenceOptions& options);

/// Scores (one scale, no flip) or probabilities of a whole picture at its own size.
/// Shapes:  returns f32 [1, K, h, w]
[[nodiscard]] Tensor predict_scores(const ForwardFn& network, const datasets::Image& image,
                                    const InferenceOptions& options);

/// Where the tiles along one axis begin: all inside [0, size), neighbours share at least `overlap`, the last ends at `size`.
[[nodiscard]] std::vector<std::int64_t> tile_starts(std::int64_t size, std::int64_t tile, std::int64_t overlap);

}  // namespace limbeck::apps
