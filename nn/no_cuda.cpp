// What this is: as ops/no_cuda.cpp, for the kernels of this layer.
#include "core/error.h"
#include "nn/device_update.h"

namespace limbeck::nn {
namespace {

[[noreturn]] void missing() {
  fail<ConfigError>("optimizer", "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace

void sgd_update_cuda(const DeviceUpdates&, const SgdRule&, const float*) { missing(); }
void adamw_update_cuda(const DeviceUpdates&, const AdamWRule&, const float*) { missing(); }
void average_cuda(const DeviceUpdates&, const AverageRule&, const float*) { missing(); }
void norm_cuda(const DeviceUpdates&, float*) { missing(); }
void clip_cuda(const DeviceUpdates&, const float*, double) { missing(); }

}  // namespace limbeck::nn
