// What this is: one number per position of a feature map as a picture.
// Read next: autoencoder_task.cpp.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "datasets/dataset.h"

namespace limbeck::apps {

/// The root mean square over the channels of entry 0.
/// Shapes: map [N,C,H,W]; returns f32 [1,1,H,W]
[[nodiscard]] Tensor channel_energy(const Tensor& map);

/// Black over violet, red and yellow to white for values from 0 to `most` and beyond, enlarged bilinearly to h x w.
/// Shapes: values f32 [1,1,H,W]
[[nodiscard]] datasets::Image heat_map(const Tensor& values, double most, std::int64_t h, std::int64_t w);

}  // namespace limbeck::apps
