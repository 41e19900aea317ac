#include "datasets/device_confusion.h"

#include "core/cuda.h"
#include "core/error.h"

namespace limbeck::datasets {

DeviceConfusion::DeviceConfusion(std::int64_t classes, Device device)
    : classes_(ConfusionMatrix(classes).classes()),
      counts_(Tensor::zeros({classes * classes + 2}, DType::kI64, device)) {
  LIMBECK_CHECK(device.is_cuda(), "metrics", "counting on {}, expected a GPU", device.to_string());
}

void DeviceConfusion::update(const Tensor& truth, const Tensor& prediction) {
  LIMBECK_CHECK(truth.shape() == prediction.shape(), "metrics",
                "truth has shape {}, prediction {}; resize the logits to the label size before argmax", truth.shape(),
                prediction.shape());
  for (const Tensor* t : {&truth, &prediction}) {
    const bool ids = t->dtype() == DType::kU8 || t->dtype() == DType::kI32 || t->dtype() == DType::kI64;
    LIMBECK_CHECK(ids && t->device() == counts_.device(), "metrics", "got {}, expected ids of u8, i32 or i64 on {}",
                  t->describe(), counts_.device().to_string());
  }
  if (truth.numel() == 0) return;
  cuda::activate(counts_.device(), "metrics");
  count_pairs_cuda(truth.dense().view(), prediction.dense().view(), classes_, counts_.view());
}

ConfusionMatrix DeviceConfusion::matrix() const {
  const auto sums = counts_.to_vector<std::int64_t>();
  if (sums.back() != 0) {
    fail<DataError>(
        "metrics",
        "{} pixels have a truth or predicted id that is not in 0..{} (truth: or 255, ignored); on the CPU the "
        "first of them is named",
        sums.back(), classes_ - 1);
  }
  return ConfusionMatrix::from_tensor(Tensor::from(std::span(sums).first(sums.size() - 1), {classes_ * classes_ + 1}),
                                      classes_);
}

}  // namespace limbeck::datasets
