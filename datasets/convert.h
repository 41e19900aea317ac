// What this is: single conversions between pictures, masks and tensors, for evaluation, prediction and reports.
// What it is not: the training path, which writes batches in place (transforms.h).
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "datasets/dataset.h"
#include "datasets/transforms.h"

namespace limbeck::datasets {

/// A picture as network input, padded at the bottom and on the right to multiples of `multiple`.
/// Shapes:  returns f32 [1,3,H',W'], H' and W' = h and w rounded up.
[[nodiscard]] Tensor to_tensor(const Image& image, const Normalisation& normalisation, std::int64_t multiple = 1,
                               Rgb pad_colour = {124, 116, 104});

/// A picture as bytes in the order of the network's channels, for normalise() (normalise.h).
/// Shapes:  returns u8 [1,3,h,w]
[[nodiscard]] Tensor to_bytes(const Image& image, const Normalisation& normalisation);

/// Entry `n` of a batch of network inputs as a picture again; values are clamped.
/// Shapes:  images f32 or bf16 [N,3,H,W].
[[nodiscard]] Image to_image(const Tensor& images, std::int64_t n, const Normalisation& normalisation);

/// Entry `n` of a batch of ids. Throws DataError when an id is not in 0..255.
/// Shapes:  ids u8, i32 or i64 [N,H,W] (or [H,W] with n = 0).
[[nodiscard]] Mask to_mask(const Tensor& ids, std::int64_t n = 0);

/// Ids as a tensor.
/// Shapes:  returns u8 [1,H,W].
[[nodiscard]] Tensor to_tensor(const Mask& mask);

/// The middle of a sample. Where it is smaller than the window, the picture is padded with `pad_colour` and the mask
/// with kIgnoreId. Note that scores on centre crops are not comparable with scores on whole pictures.
[[nodiscard]] Sample centre_crop(const Sample& sample, std::int64_t h, std::int64_t w,
                                 Rgb pad_colour = {124, 116, 104});

}  // namespace limbeck::datasets
