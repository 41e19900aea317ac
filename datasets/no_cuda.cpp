// What this is: as ops/no_cuda.cpp, for the kernel of this layer.
#include "core/error.h"
#include "datasets/device_confusion.h"

namespace limbeck::datasets {

void count_pairs_cuda(const TensorView&, const TensorView&, std::int64_t, const TensorView&) {
  fail<ConfigError>("metrics", "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace limbeck::datasets
