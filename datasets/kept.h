// What this is: a data set that stays in memory once it has been read: decoding or drawing a picture costs more than the
//   rest of a small network's step.
// Read next: dataset.h.
#pragma once

#include <memory>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// `dataset`, of which every sample is read at most once. Holds 4 bytes per pixel. load() may still be called from many
/// threads; it throws what the data set throws, and tries again next time.
[[nodiscard]] std::shared_ptr<const Dataset> keep_in_memory(std::shared_ptr<const Dataset> dataset);

}  // namespace limbeck::datasets
