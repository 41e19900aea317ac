// Counts of (truth, prediction) pairs on the GPU. Integers: atomic additions give the same sums in any order.
//
// Neighbouring pixels mostly belong to the same pair, and additions to one number wait for each other. A thread therefore takes
// a run of 16 pixels and adds once per change; blocks collect in shared memory where the matrix fits there.
#include "core/cuda/kernel.cuh"
#include "datasets/device_confusion.h"

namespace limbeck::datasets {
namespace {

using namespace cuda;

constexpr unsigned kRun = 16;
constexpr unsigned kShared = 4096;  // counters: up to 63 classes

struct Ids {
  const void* data;
  DType dtype;

  __device__ long long at(std::size_t pixel) const {
    switch (dtype) {
      case DType::kU8: return static_cast<const std::uint8_t*>(data)[pixel];
      case DType::kI32: return static_cast<const std::int32_t*>(data)[pixel];
      default: return static_cast<const std::int64_t*>(data)[pixel];
    }
  }
};

/// The counter that a pixel belongs to.
__device__ inline unsigned cell_of(long long truth, long long prediction, unsigned classes) {
  if (truth == kIgnoreId) return classes * classes;
  const bool inside = truth >= 0 && truth < classes && prediction >= 0 && prediction < classes;
  return inside ? static_cast<unsigned>(truth) * classes + static_cast<unsigned>(prediction) : classes * classes + 1;
}

__global__ void count_pairs_kernel(Ids truth, Ids prediction, unsigned classes, unsigned pixels,
                                   unsigned long long* counts) {
  __shared__ unsigned local[kShared];
  const unsigned cells = classes * classes + 2;
  const bool collects = cells <= kShared;
  if (collects) {
    for (unsigned i = threadIdx.x; i < cells; i += blockDim.x) local[i] = 0;
    __syncthreads();
  }
  const auto add = [&](unsigned cell, unsigned count) {
    if (collects) {
      atomicAdd(local + cell, count);
    } else {
      atomicAdd(counts + cell, static_cast<unsigned long long>(count));
    }
  };
  const unsigned runs = (pixels + kRun - 1) / kRun;
  for (unsigned run = first(); run < runs; run += step()) {
    const unsigned begin = run * kRun;
    const unsigned end = pixels - begin < kRun ? pixels : begin + kRun;
    unsigned cell = cell_of(truth.at(begin), prediction.at(begin), classes);
    unsigned count = 1;
    for (unsigned i = begin + 1; i < end; ++i) {
      const unsigned next = cell_of(truth.at(i), prediction.at(i), classes);
      if (next != cell) {
        add(cell, count);
        cell = next;
        count = 0;
      }
      ++count;
    }
    add(cell, count);
  }
  if (!collects) return;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < cells; i += blockDim.x) {
    if (local[i] != 0) atomicAdd(counts + i, static_cast<unsigned long long>(local[i]));
  }
}

}  // namespace

void count_pairs_cuda(const TensorView& truth, const TensorView& prediction, std::int64_t classes,
                      const TensorView& counts) {
  LIMBECK_CHECK(truth.numel() < (std::int64_t{1} << 32) - kRun, "metrics", "{} pixels are more than a kernel counts",
                truth.numel());
  const auto pixels = static_cast<unsigned>(truth.numel());
  // Few blocks: each adds its counters to the result once.
  const unsigned most = 8 * static_cast<unsigned>(properties().multiProcessorCount);
  const unsigned blocks = std::min(grid_for(ceil_div(pixels, kRun)), most);
  launch(count_pairs_kernel, blocks, kBlock, Ids{truth.data, truth.dtype}, Ids{prediction.data, prediction.dtype},
         classes, pixels, counts.ptr<unsigned long long>());
}

}  // namespace limbeck::datasets
