// Reference dropout: one element after another in logical order, its random word from the generator.
#include "ops/dropout_kernels.h"

namespace limbeck::ops {

void dropout_ref(const TensorView& x, const TensorView& y, const DropoutArgs& args) {
  visit_reference_dtype("dropout", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    // With whole_channels all elements of a plane share the decision with the plane's index n C + c.
    std::int64_t plane = 1;
    for (std::size_t d = 2; args.whole_channels && d < x.shape.size(); ++d) plane *= x.shape[d];
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      std::int64_t rest = i;
      std::int64_t xi = 0;
      std::int64_t yi = 0;
      for (std::size_t d = x.shape.size(); d-- > 0;) {
        xi += rest % x.shape[d] * x.strides[d];
        yi += rest % x.shape[d] * y.strides[d];
        rest /= x.shape[d];
      }
      const std::uint32_t word = args.generator.word_at(static_cast<std::uint64_t>(i / plane));
      const bool keep = (word >> 8U) >= args.threshold();
      y.ptr<T>()[yi] = keep ? x.ptr<T>()[xi] * static_cast<T>(args.scale()) : T(0);
    }
  });
}

}  // namespace limbeck::ops
