// What this is: counting for a confusion matrix where the predictions are, on a GPU, so that no mask is copied to score it.
// Read next: metrics.h.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "datasets/metrics.h"

namespace limbeck::datasets {

/// Sums over any number of masks; the host does not wait for the device until matrix() is called.
class DeviceConfusion {
 public:
  /// `device` is a GPU.
  DeviceConfusion(std::int64_t classes, Device device);

  /// Counts as ConfusionMatrix::update() does, but an id that is not in 0..K-1 is noticed in matrix() only.
  /// Shapes:  both u8, i32 or i64 of equal shape on the device.
  void update(const Tensor& truth, const Tensor& prediction);

  /// The sums so far.
  /// Throws:  DataError with the number of pixels that have an id not in 0..K-1.
  [[nodiscard]] ConfusionMatrix matrix() const;

 private:
  std::int64_t classes_;
  Tensor counts_;  // i64 [K*K + 2]: the matrix, ignored pixels, pixels with an id out of range
};

/// counts += the pairs of ids of dense maps; see DeviceConfusion.
/// Shapes:  truth, prediction equal; counts i64 [classes^2 + 2]
void count_pairs_cuda(const TensorView& truth, const TensorView& prediction, std::int64_t classes,
                      const TensorView& counts);

}  // namespace limbeck::datasets
