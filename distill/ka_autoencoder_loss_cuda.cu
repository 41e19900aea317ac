// The autoencoder's objective on the GPU: the squared distance and its gradient in one pass over the maps, the magnitudes and theirs in
// one over the code.
#include "distill/distance.cuh"
#include "distill/ka_autoencoder_loss_kernels.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

template <class T>
__global__ void magnitude_kernel(const T* code, T* gcode, float slope, unsigned count, double* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned i = first(); i < count; i += step()) {
    const float v = to_float(code[i]);
    total += static_cast<double>(fabsf(v));
    if (gcode != nullptr) gcode[i] = from_float<T>(v < 0 ? -slope : v > 0 ? slope : v);
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// loss = the sum of the squares and that of the magnitudes, each with its factor.
__global__ void finish_kernel(const double* squares, unsigned square_count, double square_factor,
                              const double* magnitudes, unsigned magnitude_count, double magnitude_factor,
                              float* loss) {
  __shared__ double scratch[32];
  double of_squares = 0;
  double of_magnitudes = 0;
  for (unsigned i = threadIdx.x; i < square_count; i += kBlock) of_squares += squares[i];
  for (unsigned i = threadIdx.x; i < magnitude_count; i += kBlock) of_magnitudes += magnitudes[i];
  of_squares = block_all(of_squares, Add{}, 0.0, scratch);
  of_magnitudes = block_all(of_magnitudes, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) *loss = static_cast<float>(of_squares * square_factor + of_magnitudes * magnitude_factor);
}

}  // namespace

void ka_autoencoder_loss_cuda(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                              const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                              const KaAutoencoderOptions& options) {
  constexpr const char* kLoss = "ka_autoencoder_loss";
  LIMBECK_CHECK(code.numel() < (std::int64_t{1} << 31), kLoss, "a code of shape {} has too many elements", code.shape);
  const unsigned map_blocks = distance_blocks(map);
  const unsigned code_blocks = distance_blocks(code);
  const Scratch partial((map_blocks + code_blocks) * sizeof(double));
  auto* squares = partial.as<double>();
  double* magnitudes = squares + map_blocks;
  const double mean = 1 / static_cast<double>(map.numel());
  const double factor = ka_code_factor(code, options);
  // No channel matters here: the whole map is one row.
  distance_partials(kLoss, PlainDifference{}, reconstruction, map, greconstruction, mean, map.numel(), squares);
  visit_fast_dtype(kLoss, code.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(magnitude_kernel<T>, code_blocks, kBlock, code.ptr<const T>(), gcode.ptr<T>(), static_cast<float>(factor),
           code.numel(), magnitudes);
  });
  launch(finish_kernel, 1, kBlock, squares, map_blocks, mean, magnitudes, code_blocks, factor, loss.ptr<float>());
}

}  // namespace limbeck::distill
