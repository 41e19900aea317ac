// Fast copy. Rows that are consecutive on both sides go to core's copy_view, which already casts and copies them with
// vector instructions. What it does badly is a transposition (channels-last <-> row-major): each read then touches
// another cache line. Those are done here in square tiles, so that a line is read once and used whole.
#include "core/parallel.h"
#include "ops/copy_kernels.h"
#include "ops/strided_loop.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kTile = 16;  // a cache line of floats

/// Copies the plane of dimensions (p, q): the destination is consecutive along q, the source along p.
template <class T>
void transpose_plane(const T* s, std::int64_t s_q, T* d, std::int64_t d_p, std::int64_t np, std::int64_t nq) {
  for (std::int64_t p = 0; p < np; p += kTile) {
    const std::int64_t p_end = std::min(np, p + kTile);
    for (std::int64_t q = 0; q < nq; q += kTile) {
      const std::int64_t q_end = std::min(nq, q + kTile);
      for (std::int64_t i = p; i < p_end; ++i) {
        for (std::int64_t j = q; j < q_end; ++j) d[i * d_p + j] = s[j * s_q + i];
      }
    }
  }
}

/// True if it was a transposition and has been done.
template <class T>
bool try_transpose(const TensorView& source, const TensorView& destination) {
  const LoopNest<2> nest = make_nest<2>({&destination, &source});
  const std::size_t q = nest.count - 1;
  if (nest.count < 2 || nest.stride[0][q] != 1 || nest.stride[1][q] <= 1) return false;
  std::size_t p = 0;
  while (p < q && nest.stride[1][p] != 1) ++p;
  if (p == q || nest.size[p] < 4 || nest.size[q] < 4) return false;

  // Planes: all other dimensions, times slices of p so that a single plane also uses all cores.
  const std::int64_t slices = (nest.size[p] + kTile - 1) / kTile;
  std::int64_t planes = 1;
  for (std::size_t d = 0; d < q; ++d) planes *= d == p ? 1 : nest.size[d];
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (nest.size[q] * kTile));
  parallel_for(planes * slices, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      std::int64_t plane = task / slices;
      const std::int64_t first = task % slices * kTile;
      std::int64_t d0 = first * nest.stride[0][p];
      std::int64_t s0 = first * nest.stride[1][p];
      for (std::size_t d = q; d-- > 0;) {
        if (d == p) continue;
        d0 += plane % nest.size[d] * nest.stride[0][d];
        s0 += plane % nest.size[d] * nest.stride[1][d];
        plane /= nest.size[d];
      }
      transpose_plane(source.ptr<T>() + s0, nest.stride[1][q], destination.ptr<T>() + d0, nest.stride[0][p],
                      std::min(kTile, nest.size[p] - first), nest.size[q]);
    }
  });
  return true;
}

}  // namespace

void copy_cpu(const TensorView& source, const TensorView& destination) {
  if (destination.numel() == 0) return;
  if (source.dtype == DType::kF32 && destination.dtype == DType::kF32 && try_transpose<float>(source, destination)) {
    return;
  }
  if (source.dtype == DType::kBF16 && destination.dtype == DType::kBF16 &&
      try_transpose<bfloat16>(source, destination)) {
    return;
  }
  copy_view(source, destination);
}

}  // namespace limbeck::ops
