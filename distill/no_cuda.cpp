// What this is: as ops/no_cuda.cpp, for the kernels of this layer.
#include "distill/channel_kd_kernels.h"
#include "distill/feature_mse_kernels.h"
#include "distill/ofd_kd_kernels.h"
#include "distill/pixel_kd_kernels.h"

namespace limbeck::distill {
namespace {

using View = const TensorView&;

[[noreturn]] void missing(const char* op) {
  fail<ConfigError>(op, "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace

void pixel_kd_cuda(View, View, View, View, View, const PixelKdOptions&) { missing("pixel_kd"); }
void channel_kd_cuda(View, View, View, View, const ChannelKdOptions&) { missing("channel_kd"); }
void feature_mse_cuda(View, View, View, View, double) { missing("feature_mse"); }
void ofd_kd_cuda(View, View, View, View, View) { missing("ofd_kd"); }

}  // namespace limbeck::distill
