// What this is: as ops/no_cuda.cpp, for the kernels of this layer.
#include "core/error.h"
#include "datasets/device_confusion.h"
#include "datasets/normalise.h"

namespace limbeck::datasets {
namespace {

[[noreturn]] void missing(const char* op) {
  fail<ConfigError>(op, "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace

void count_pairs_cuda(const TensorView&, const TensorView&, std::int64_t, const TensorView&) { missing("metrics"); }
void normalise_cuda(const TensorView&, const Normalisation&, const TensorView&) { missing("normalise"); }

}  // namespace limbeck::datasets
