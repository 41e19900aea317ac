// What this is: as ops/no_cuda.cpp, for the kernels of this layer.
#include "distill/attention_kd_kernels.h"
#include "distill/batch_similarity_kd_kernels.h"
#include "distill/channel_kd_kernels.h"
#include "distill/csd_kd_kernels.h"
#include "distill/draws.h"
#include "distill/feature_mse_kernels.h"
#include "distill/ifvd_kernels.h"
#include "distill/inter_channel_kd_kernels.h"
#include "distill/inter_class_kd_kernels.h"
#include "distill/ka_adapt_kernels.h"
#include "distill/ka_affinity_kernels.h"
#include "distill/ka_autoencoder_loss_kernels.h"
#include "distill/local_kd_kernels.h"
#include "distill/ofd_kd_kernels.h"
#include "distill/pairwise_kd_kernels.h"
#include "distill/pixel_kd_kernels.h"

namespace limbeck::distill {
namespace {

using View = const TensorView&;
using Views = const std::vector<TensorView>&;

[[noreturn]] void missing(const char* op) {
  fail<ConfigError>(op, "this build has no GPU code (configure with -DLIMBECK_CUDA=ON); use --device cpu");
}

}  // namespace

void draw_cuda(const Generator&, bool, double, View) { missing("draw"); }
void pixel_kd_cuda(View, View, View, View, View, const PixelKdOptions&) { missing("pixel_kd"); }
void channel_kd_cuda(View, View, View, View, const ChannelKdOptions&) { missing("channel_kd"); }
void feature_mse_cuda(View, View, View, View, double) { missing("feature_mse"); }
void ofd_kd_cuda(View, View, View, View, View) { missing("ofd_kd"); }
void energy_cuda(View, View) { missing("attention_kd"); }
void energy_backward_cuda(View, View, View) { missing("attention_kd"); }
void attention_loss_cuda(const Shape&, AttentionForm, View, View, View, View) { missing("attention_kd"); }
void psd_loss_cuda(const Shape&, Views, Views, View, Views) { missing("psd_kd"); }
void pairwise_kd_cuda(View, View, View, View, const PairwiseKdOptions&) { missing("pairwise_kd"); }
void batch_similarity_kd_cuda(View, View, View, View) { missing("batch_similarity_kd"); }
void inter_channel_kd_cuda(View, View, View, View, const InterChannelKdOptions&) { missing("inter_channel_kd"); }
void csd_kd_cuda(View, View, View, View, const CsdKdOptions&) { missing("csd_kd"); }
void ifvd_cuda(View, View, View, View, View, const IfvdOptions&) { missing("ifvd"); }
void local_kd_cuda(View, View, View, View) { missing("local_kd"); }
void icsd_cuda(View, View, View, View, const IcsdOptions&) { missing("icsd"); }
void inter_class_similarity_cuda(View, double, View) { missing("inter_class_similarity"); }
void ka_autoencoder_loss_cuda(View, View, View, View, View, View, const KaAutoencoderOptions&) {
  missing("ka_autoencoder_loss");
}
void ka_adapt_cuda(View, View, View, View, const KaAdaptOptions&) { missing("ka_adapt"); }
void ka_affinity_cuda(View, View, View, View, const KaAffinityOptions&) { missing("ka_affinity"); }

}  // namespace limbeck::distill
