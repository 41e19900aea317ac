// The numbers of distill/draws.h by a thread each.
#include "core/cuda/philox.cuh"
#include "distill/draws.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// `most`: the largest number, in units of 2^-53, that a mask keeps.
__global__ void draw_kernel(RandomWords words, bool mask, unsigned long long most, float* out, unsigned count) {
  for (unsigned i = first(); i < count; i += step()) {
    const unsigned long long u = words.uniform_at(i);
    if (mask) {
      out[i] = u <= most ? 1.0F : 0.0F;
    } else {
      out[i] = static_cast<float>(static_cast<double>(u) * 0x1.0p-53);
    }
  }
}

}  // namespace

void draw_cuda(const Generator& generator, bool mask, double keep, const TensorView& out) {
  LIMBECK_CHECK(!mask || (keep >= 0 && keep <= 1), "draw", "a share of {}, expected one in [0, 1]", keep);
  LIMBECK_CHECK(out.numel() < (std::int64_t{1} << 31), "draw", "{} numbers are more than a kernel counts", out.numel());
  if (out.numel() == 0) return;
  const auto most = static_cast<unsigned long long>(keep * 0x1.0p53);  // the product is exact
  launch(draw_kernel, grid_for(out.numel()), kBlock, RandomWords(generator), mask, most, out.ptr<float>(),
         static_cast<unsigned>(out.numel()));
}

}  // namespace limbeck::distill
