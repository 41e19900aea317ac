// Glue of the autoencoder's objective.
#include "distill/ka_autoencoder_loss.h"

#include "distill/check_pair.h"
#include "distill/ka_autoencoder_loss_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {

Tensor ka_autoencoder_loss(const Tensor& reconstruction, const Tensor& code, const Tensor& map,
                           const KaAutoencoderOptions& options) {
  constexpr const char* kLoss = "ka_autoencoder_loss";
  ops::check_float(kLoss, reconstruction);
  ops::check_float(kLoss, code);
  ops::check_float(kLoss, map);
  LIMBECK_CHECK(reconstruction.ndim() == 4 && reconstruction.shape() == map.shape(), kLoss,
                "reconstruction of shape {}, map of shape {}, expected equal [N,C,H,W]", reconstruction.shape(),
                map.shape());
  LIMBECK_CHECK(code.ndim() == 4 && code.size(0) == map.size(0), kLoss,
                "code of shape {} for a map of shape {}, expected [{},D,h,w]", code.shape(), map.shape(), map.size(0));
  check_pair_kinds(kLoss, reconstruction, map);
  check_pair_kinds(kLoss, code, map);
  LIMBECK_CHECK(options.alpha >= 0, kLoss, "alpha = {}, expected a number that is not negative", options.alpha);
  const Tensor r = reconstruction.dense();
  const Tensor e = code.dense();
  const Tensor t = map.dense();
  Tensor loss = Tensor::empty(Shape{}, ops::loss_dtype(r.dtype()), r.device());
  auto node = record<MultiLossNode>({&reconstruction, &code});
  const auto gradient_of = [&](std::size_t i, const Tensor& x) {
    return node && node->needs_input_grad(i) ? Tensor::empty_like(x) : Tensor();
  };
  const Tensor gr = gradient_of(0, r);
  const Tensor ge = gradient_of(1, e);
  kKaAutoencoderLoss(r.device(), r.dtype(), r.view(), e.view(), t.view(), loss.view(), gr.view(), ge.view(), options);
  if (node) {
    node->label = kLoss;
    node->gradients = {gr, ge};
    node->attach(loss);
  }
  return loss;
}

}  // namespace limbeck::distill
