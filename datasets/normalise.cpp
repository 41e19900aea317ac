#include "datasets/normalise.h"

#include <array>
#include <cmath>

#include "core/cuda.h"
#include "core/error.h"
#include "core/parallel.h"

namespace limbeck::datasets {
namespace {

constexpr std::size_t kLevels = 256;

/// Bytes have 256 values: what becomes of each, per channel.
template <class T>
void look_up(const Tensor& bytes, const Normalisation& n, const Tensor& y) {
  std::array<std::array<T, kLevels>, 3> table{};
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t v = 0; v < kLevels; ++v)
      table[c][v] = static_cast<T>(std::fma(static_cast<float>(v), n.scale[c], n.shift[c]));
  }
  const auto* from = bytes.data<std::uint8_t>();
  T* to = y.data<T>();
  parallel_for(bytes.numel() / 3, 8192, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 3 * begin; i < 3 * end; i += 3) {
      for (std::int64_t c = 0; c < 3; ++c) to[i + c] = table[static_cast<std::size_t>(c)][from[i + c]];
    }
  });
}

}  // namespace

Tensor normalise(const Tensor& bytes, const Normalisation& normalisation, DType dtype) {
  const bool fits = bytes.dtype() == DType::kU8 && bytes.ndim() == 4 && bytes.size(1) == 3 && bytes.is_dense();
  LIMBECK_CHECK(fits && (dtype == DType::kF32 || dtype == DType::kBF16), "normalise",
                "got {} to be {}, expected u8 [N,3,H,W] to be f32 or bf16", bytes.describe(), name_of(dtype));
  const Tensor y = Tensor::empty(bytes.shape(), dtype, bytes.device());
  if (bytes.numel() == 0) return y;
  if (bytes.device().is_cuda()) {
    cuda::activate(bytes.device(), "normalise");
    normalise_cuda(bytes.view(), normalisation, y.view());
  } else if (dtype == DType::kF32) {
    look_up<float>(bytes, normalisation, y);
  } else {
    look_up<bfloat16>(bytes, normalisation, y);
  }
  return y;
}

}  // namespace limbeck::datasets
