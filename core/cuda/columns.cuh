// What this is: reduction over the rows of a channels-last map, one result per column: batch statistics, bias gradients,
//   softmax sums over positions. Two stages, so that the order of the additions depends on the shape alone, in one launch.
//
// Note [columns]
//   A block holds `lanes` neighbouring vectors of columns (a power of two, so that narrow maps do not leave threads idle)
//   and 256 / lanes rows. Each thread adds up its share of the rows, the block merges them as a tree, and the last block of
//   a column to come to its end merges what the others have left in the same way.
//
//   The functor F says what is done:
//     Acc                       plain struct, one per thread; 256 of them must fit into 48 KB
//     start(acc)                the neutral element
//     add(acc, stack, row, v)   takes vector v (its index, not its channel) of that row
//     merge(a, b)               a = a joined with b
//     finish(acc, stack, v)     writes the result
//   and, if it needs numbers per column:
//     Column                    plain struct, kept in registers
//     column(v)                 loads it; add() then is add(acc, column, stack, row, v)
//     kRows                     how many rows are loaded ahead
//
// Note [last block]
//   A second kernel for the last stage would cost the device two to three microseconds, as much as the first where maps are small, and a
//   training step has hundreds of reductions. Blocks therefore count themselves; the one that sees that all others have been
//   there does the rest, in the order of the splits whichever it is, and sets the counter back for the next launch. Kernels of a
//   device follow one another on one stream, so one set of counters is enough.
#pragma once

#include <algorithm>

#include "core/cuda/kernel.cuh"

namespace limbeck::cuda {

/// Of accumulators that begin with V floats: then they are moved 16 bytes at once.
template <int V>
inline constexpr std::size_t kAlignment = V % 4 == 0 ? 16 : alignof(float);

struct ColumnShape {
  unsigned rows;     // of one stack
  unsigned vectors;  // columns / lanes of a vector
  unsigned lanes;    // threads along a row
  unsigned splits;   // blocks along the rows
};

inline constexpr std::int64_t kMostBlocks = 528;  // four for each of Hopper's 132 multiprocessors

/// Zero between launches. Every source has its own.
[[maybe_unused]] static __device__ unsigned tickets[kMostBlocks];

/// True in the block that calls it last of `blocks`: it then sees what all of them have written. All threads call it; `flag` is
/// in shared memory and may be used again afterwards.
__device__ inline bool comes_last(unsigned* ticket, unsigned blocks, unsigned* flag) {
  __threadfence();  // what this thread has written comes before its block's ticket
  __syncthreads();
  if (threadIdx.x == 0) {
    *flag = atomicAdd(ticket, 1U) == blocks - 1 ? 1 : 0;
    if (*flag != 0) *ticket = 0;
  }
  __syncthreads();
  const bool last = *flag != 0;
  __syncthreads();
  if (last) __threadfence();  // and what the others have written, after theirs
  return last;
}

template <class F>
concept HasColumn = requires {
  typename F::Column;
};

/// Takes the rows begin, begin + step, ... before `end` of one vector.
template <class F>
__device__ inline void add_rows(const F& f, typename F::Acc& acc, unsigned stack, unsigned v, unsigned begin,
                                unsigned end, unsigned step) {
  if constexpr (HasColumn<F>) {
    const typename F::Column column = f.column(v);
    [[maybe_unused]] constexpr int kRows = F::kRows;
#pragma unroll kRows
    for (unsigned row = begin; row < end; row += step) f.add(acc, column, stack, row, v);
  } else {
    for (unsigned row = begin; row < end; row += step) f.add(acc, stack, row, v);
  }
}

/// Merges the accumulators of the block's threads that belong to the same lane; the threads of the first row get it.
template <class F>
__device__ inline void merge_block(const F& f, typename F::Acc& acc, unsigned lanes, typename F::Acc* shared) {
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
  alignas(16) __shared__ typename F::Acc shared[kBlock];
  typename F::Acc acc;
  f.start(acc);
  if (v < s.vectors) {
    const unsigned share = (s.rows + s.splits - 1) / s.splits;
    const unsigned begin = split * share;
    const unsigned end = begin + share < s.rows ? begin + share : s.rows;
    add_rows(f, acc, stack, v, begin + threadIdx.x / s.lanes, end, kBlock / s.lanes);
  }
  merge_block(f, acc, s.lanes, shared);
  if (s.splits > 1) {
    typename F::Acc* of_stack = partial + static_cast<std::size_t>(stack) * s.splits * s.vectors;
    if (threadIdx.x < s.lanes && v < s.vectors) of_stack[split * s.vectors + v] = acc;
    if (!comes_last(tickets + stack * gridDim.x + blockIdx.x, s.splits, reinterpret_cast<unsigned*>(shared))) return;
    f.start(acc);
    if (v < s.vectors) {
      for (unsigned k = threadIdx.x / s.lanes; k < s.splits; k += kBlock / s.lanes) {
        const typename F::Acc other = of_stack[k * s.vectors + v];
        f.merge(acc, other);
      }
    }
    merge_block(f, acc, s.lanes, shared);
  }
  if (threadIdx.x < s.lanes && v < s.vectors) f.finish(acc, stack, v);
}

/// Runs f over `stacks` times `rows` rows of `vectors` vectors.
template <class F>
void reduce_columns(const F& f, std::int64_t stacks, std::int64_t rows, std::int64_t vectors) {
  static_assert(sizeof(typename F::Acc) * kBlock <= 48 * 1024);
  ColumnShape s{static_cast<unsigned>(rows), static_cast<unsigned>(vectors), 1, 1};
  while (s.lanes < 32 && s.lanes < s.vectors) s.lanes *= 2;
  const unsigned columns = ceil_div(vectors, s.lanes);
  // At least 8 rows per thread.
  const std::int64_t useful = rows / (8 * (kBlock / s.lanes));
  const std::int64_t most = std::max<std::int64_t>(kMostBlocks / (static_cast<std::int64_t>(columns) * stacks), 1);
  s.splits = static_cast<unsigned>(std::clamp<std::int64_t>(useful, 1, most));
  const dim3 grid(columns, s.splits, static_cast<unsigned>(stacks));
  if (s.splits == 1) {
    launch(reduce_columns_kernel<F>, grid, kBlock, f, s, static_cast<typename F::Acc*>(nullptr));
    return;
  }
  const Scratch partial(sizeof(typename F::Acc) * static_cast<std::size_t>(stacks * vectors) * s.splits);
  auto* p = partial.as<typename F::Acc>();
  launch(reduce_columns_kernel<F>, grid, kBlock, f, s, p);
}

/// Adds `count` numbers, scaled, into one: the last stage of a loss.
template <class Out>
__global__ void finish_sum_kernel(const double* partial, unsigned count, double scale, Out* out) {
  __shared__ double scratch[32];
  const double sum = sum_all(partial, count, scratch);
  if (threadIdx.x == 0) *out = static_cast<Out>(sum * scale);
}

}  // namespace limbeck::cuda
