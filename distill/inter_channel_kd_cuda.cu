// The inter-channel correlation loss on the GPU: the correlation matrices as products of the maps with themselves, their comparison
// in one block per image, the gradient as a product of the map with the matrix that comes out.
#include "core/cuda/products.cuh"
#include "distill/gram_rows.cuh"
#include "distill/inter_channel_kd_kernels.h"

namespace limbeck::distill {

using namespace cuda;

void inter_channel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                           const TensorView& gstudent, const InterChannelKdOptions& options) {
  const std::int64_t images = student.n();
  const std::int64_t channels = student.c();
  const auto c = static_cast<unsigned>(channels);
  const Scratch matrices(static_cast<std::size_t>(2 * images * channels * channels) * sizeof(double));
  auto* k_s = matrices.as<double>();
  double* k_t = k_s + images * channels * channels;
  const auto gram = [&](const TensorView& x, double* k) {
    const std::int64_t positions = x.h() * x.w();
    visit_fast_dtype("inter_channel_kd", x.dtype, [&](auto tag) {
      using T = decltype(tag);
      channel_products(MapElement<T>{x.ptr<const T>(), static_cast<unsigned>(positions), c}, k, images, positions,
                       channels);
    });
  };
  gram(student, k_s);
  gram(teacher, k_t);
  row_normalised_loss_cuda(k_s, k_t, images, channels, inter_channel_factor(student, options), gstudent.defined(),
                           loss.ptr<float>());
  if (!gstudent.defined()) return;
  const std::int64_t positions = student.h() * student.w();
  const auto m = static_cast<unsigned>(positions);
  visit_fast_dtype("inter_channel_kd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    product(OverChannels<MapElement<S>>{{student.ptr<const S>(), m, c}}, MatrixOperand<double>{k_s, c, c},
            StoreMatrix<S>{gstudent.ptr<S>(), m, c}, images, positions, channels, channels);
  });
}

}  // namespace limbeck::distill
