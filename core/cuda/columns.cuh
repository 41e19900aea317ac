// What this is: reduction over the rows of a channels-last map, one result per column: batch statistics, bias gradients,
//   softmax sums over positions. Two stages, so that the order of the additions depends on the shape alone.
//
// Note [columns]
//   A block holds `lanes` neighbouring vectors of columns (a power of two, so that narrow maps do not leave threads idle)
//   and 256 / lanes rows. Each thread adds up its share of the rows, the block merges them as a tree, and a second
//   kernel merges the blocks of a column in the same way.
//
//   The functor F says what is done:
//     Acc                       plain struct, one per thread; 256 of them must fit into 48 KB
//     start(acc)                the neutral element
//     add(acc, stack, row, v)   takes vector v (its index, not its channel) of that row
//     merge(a, b)               a = a joined with b
//     finish(acc, stack, v)     writes the result
#pragma once

#include <algorithm>

#include "core/cuda/kernel.cuh"

namespace limbeck::cuda {

struct ColumnShape {
  unsigned rows;     // of one stack
  unsigned vectors;  // columns / lanes of a vector
  unsigned lanes;    // threads along a row
  unsigned splits;   // blocks along the rows
};

/// Merges the accumulators of the block's threads that belong to the same lane; the threads of the first row get it.
template <class F>
__device__ inline void merge_block(const F& f, typename F::Acc& acc, unsigned lanes) {
  __shared__ typename F::Acc shared[kBlock];
  shared[threadIdx.x] = acc;
  __syncthreads();
  for (unsigned reach = kBlock / 2; reach >= lanes; reach /= 2) {
    if (threadIdx.x < reach) f.merge(shared[threadIdx.x], shared[threadIdx.x + reach]);
    __syncthreads();
  }
  acc = shared[threadIdx.x % lanes];
}

template <class F>
__global__ void reduce_columns_kernel(F f, ColumnShape s, typename F::Acc* partial) {
  const unsigned lane = threadIdx.x % s.lanes;
  const unsigned v = blockIdx.x * s.lanes + lane;
  const unsigned split = blockIdx.y;
  const unsigned stack = blockIdx.z;
  typename F::Acc acc;
  f.start(acc);
  if (v < s.vectors) {
    const unsigned share = (s.rows + s.splits - 1) / s.splits;
    const unsigned begin = split * share;
    const unsigned end = begin + share < s.rows ? begin + share : s.rows;
    for (unsigned row = begin + threadIdx.x / s.lanes; row < end; row += kBlock / s.lanes) f.add(acc, stack, row, v);
  }
  merge_block(f, acc, s.lanes);
  if (threadIdx.x >= s.lanes || v >= s.vectors) return;
  if (s.splits == 1) {
    f.finish(acc, stack, v);
  } else {
    partial[(static_cast<std::size_t>(stack) * s.splits + split) * s.vectors + v] = acc;
  }
}

template <class F>
__global__ void finish_columns_kernel(F f, ColumnShape s, const typename F::Acc* partial) {
  const unsigned lane = threadIdx.x % s.lanes;
  const unsigned v = blockIdx.x * s.lanes + lane;
  const unsigned stack = blockIdx.z;
  typename F::Acc acc;
  f.start(acc);
  if (v < s.vectors) {
    for (unsigned split = threadIdx.x / s.lanes; split < s.splits; split += kBlock / s.lanes) {
      f.merge(acc, partial[(static_cast<std::size_t>(stack) * s.splits + split) * s.vectors + v]);
    }
  }
  merge_block(f, acc, s.lanes);
  if (threadIdx.x < s.lanes && v < s.vectors) f.finish(acc, stack, v);
}

/// Runs f over `stacks` times `rows` rows of `vectors` vectors.
template <class F>
void reduce_columns(const F& f, std::int64_t stacks, std::int64_t rows, std::int64_t vectors) {
  static_assert(sizeof(typename F::Acc) * kBlock <= 48 * 1024);
  ColumnShape s{static_cast<unsigned>(rows), static_cast<unsigned>(vectors), 1, 1};
  while (s.lanes < 32 && s.lanes < s.vectors) s.lanes *= 2;
  const unsigned columns = ceil_div(vectors, s.lanes);
  // At least 8 rows per thread, at most about four blocks for each of Hopper's 132 multiprocessors.
  const std::int64_t useful = rows / (8 * (kBlock / s.lanes));
  const std::int64_t most = std::max<std::int64_t>(528 / (static_cast<std::int64_t>(columns) * stacks), 1);
  s.splits = static_cast<unsigned>(std::clamp<std::int64_t>(useful, 1, most));
  const dim3 grid(columns, s.splits, static_cast<unsigned>(stacks));
  if (s.splits == 1) {
    launch(reduce_columns_kernel<F>, grid, kBlock, f, s, static_cast<typename F::Acc*>(nullptr));
    return;
  }
  const Scratch partial(sizeof(typename F::Acc) * static_cast<std::size_t>(stacks * vectors) * s.splits);
  auto* p = partial.as<typename F::Acc>();
  launch(reduce_columns_kernel<F>, grid, kBlock, f, s, p);
  launch(finish_columns_kernel<F>, dim3(columns, 1, static_cast<unsigned>(stacks)), kBlock, f, s, p);
}

/// Adds `count` numbers, scaled, into one: the last stage of a loss.
template <class Out>
__global__ void finish_sum_kernel(const double* partial, unsigned count, double scale, Out* out) {
  __shared__ double scratch[32];
  double sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += kBlock) sum += partial[i];
  sum = block_all(sum, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) *out = static_cast<Out>(sum * scale);
}

}  // namespace limbeck::cuda
