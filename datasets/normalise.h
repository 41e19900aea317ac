// What this is: the last step of augmentation, from bytes to the numbers of a network, where the network is. A batch travels to a
//   GPU as bytes: a quarter of what its numbers would be.
// Read next: transforms.h (Normalisation), loader.h (LoaderOptions::bytes).
#pragma once

#include "core/tensor.h"
#include "datasets/transforms.h"

namespace limbeck::datasets {

/// Network input from the bytes of a Loader.
/// Formula: y = x * scale[c] + shift[c], rounded once, as Normalisation::apply(); in bf16 then rounded to that
/// Shapes:  bytes u8 [N,3,H,W], dense, channels in the network's order; returns the same shape
/// Types:   f32 or bf16 as `dtype` says; the same bits on every device
/// Throws:  another shape or type
[[nodiscard]] Tensor normalise(const Tensor& bytes, const Normalisation& normalisation, DType dtype);

/// Shapes:  those of normalise(), dense
void normalise_cuda(const TensorView& bytes, const Normalisation& normalisation, const TensorView& y);

}  // namespace limbeck::datasets
