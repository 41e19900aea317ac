// What this is: kernel signature and table of the cross entropy, and the census of the labels that its kernels share.
//   Views are always maps: the glue presents [N,K] as [N,K,1,1].
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

struct CrossEntropyArgs {
  std::int64_t ignore_index = 255;
  double label_smoothing = 0;
};

/// loss = the mean of ops/cross_entropy.h; glogits = its gradient, or undefined if none is wanted.
/// Shapes:   logits [N,K,H,W]; labels [N,H,W]; class_weights [K] in the type of `loss`, or undefined; loss 0-d;
///           glogits [N,K,H,W]
using CrossEntropyFn = void(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                            const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args);

void cross_entropy_ref(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                       const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args);
void cross_entropy_cpu(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                       const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args);
void cross_entropy_cuda(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                        const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args);

inline constexpr KernelTable<CrossEntropyFn> kCrossEntropy{"cross_entropy", cross_entropy_ref, cross_entropy_cpu,
                                                           cross_entropy_cuda};

/// Throws the DataError of ops/cross_entropy.h for the label of one pixel.
/// Shapes:   none
[[noreturn]] void fail_label(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t label, std::int64_t classes,
                             std::int64_t ignore_index);

}  // namespace limbeck::ops
