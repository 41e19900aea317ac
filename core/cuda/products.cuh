// What this is: products of matrices whose elements are computed where they are used: Gram matrices of maps, of softmaxes, of
//   differences of maps, and maps times small matrices. The losses that compare matrices are made of them.
// What it is not: the matmul op (cuBLASLt). Here sums are f32 within runs of 256 and f64 beyond, because the losses subtract
//   nearly equal matrices; the order of the additions depends on the shape alone.
//
// Note [operands]
//   product() computes out(n, i, j) = sum_k a(n, k, i) b(n, k, j). An operand is a functor (n, k, i) -> float with the constant
//   kAlongDepth: whether neighbours in memory are neighbours along k (true) or along i. OverPositions and OverChannels make
//   operands of a functor (image, position, channel). The result goes to a functor (n, i, j, double).
#pragma once

#include <algorithm>

#include "core/cuda/kernel.cuh"

namespace limbeck::cuda {

/// A dense channels-last map.
template <class T>
struct MapElement {
  const T* x;
  unsigned positions, channels;
  __device__ float operator()(unsigned image, unsigned position, unsigned channel) const {
    return to_float(x[(static_cast<std::size_t>(image) * positions + position) * channels + channel]);
  }
};

/// Depth: the positions of an image; the other index: its channels.
template <class F>
struct OverPositions {
  static constexpr bool kAlongDepth = false;
  F f;
  __device__ float operator()(unsigned n, unsigned k, unsigned i) const { return f(n, k, i); }
};

/// Depth: the channels of a position; the other index: the positions.
template <class F>
struct OverChannels {
  static constexpr bool kAlongDepth = true;
  F f;
  __device__ float operator()(unsigned n, unsigned k, unsigned i) const { return f(n, i, k); }
};

/// One matrix [depth][columns] per image as the second operand.
template <class T>
struct MatrixOperand {
  static constexpr bool kAlongDepth = false;
  const T* m;
  unsigned depth, columns;
  __device__ float operator()(unsigned n, unsigned k, unsigned j) const {
    return static_cast<float>(m[(static_cast<std::size_t>(n) * depth + k) * columns + j]);
  }
};

/// Writes [rows][columns] per image.
template <class T>
struct StoreMatrix {
  T* out;
  unsigned rows, columns;
  __device__ void operator()(unsigned n, unsigned i, unsigned j, double v) const {
    T& to = out[(static_cast<std::size_t>(n) * rows + i) * columns + j];
    if constexpr (std::is_same_v<T, double>) {
      to = v;
    } else {
      to = from_float<T>(static_cast<float>(v));
    }
  }
};

struct ProductShape {
  unsigned rows, columns, depth;
  unsigned splits = 1;  // blocks along the depth
  bool symmetric = false;
};

inline constexpr unsigned kProductStep = 16;  // depth that a block holds at once
inline constexpr unsigned kProductRun = 256;  // depth that is added in f32

/// Elements [k0, k0 + kProductStep) x [i0, i0 + Tile) of an operand, 0 outside.
template <int Tile, class Operand>
__device__ inline void load_operand(const Operand& operand, unsigned n, unsigned k0, unsigned k_end, unsigned i0,
                                    unsigned i_end, float (&tile)[kProductStep][Tile + 1]) {
  for (unsigned e = threadIdx.x; e < kProductStep * Tile; e += kBlock) {
    const unsigned k = Operand::kAlongDepth ? e % kProductStep : e / Tile;
    const unsigned i = Operand::kAlongDepth ? e / kProductStep : e % Tile;
    const bool inside = k0 + k < k_end && i0 + i < i_end;
    tile[k][i] = inside ? operand(n, k0 + k, i0 + i) : 0.0F;
  }
}

/// A block makes Tile x Tile results, a thread every 16th of them in both directions.
template <int Tile, class A, class B, class Store>
__global__ void product_kernel(A a, B b, Store store, ProductShape s, double* partial) {
  constexpr int R = Tile / 16;
  __shared__ float a_tile[kProductStep][Tile + 1];
  __shared__ float b_tile[kProductStep][Tile + 1];
  const unsigned column_tiles = (s.columns + Tile - 1) / Tile;
  const unsigned i0 = blockIdx.x / column_tiles * Tile;
  const unsigned j0 = blockIdx.x % column_tiles * Tile;
  const unsigned n = blockIdx.z;
  if (s.symmetric && j0 < i0) return;
  const unsigned runs = (s.depth + kProductRun - 1) / kProductRun;
  const unsigned share = (runs + s.splits - 1) / s.splits * kProductRun;
  const unsigned begin = blockIdx.y * share;
  const unsigned end = begin + share < s.depth ? begin + share : s.depth;
  const unsigned row = threadIdx.x / 16;
  const unsigned column = threadIdx.x % 16;
  double total[R][R] = {};
  for (unsigned run = begin; run < end; run += kProductRun) {
    float sum[R][R] = {};
    const unsigned run_end = run + kProductRun < end ? run + kProductRun : end;
    for (unsigned k0 = run; k0 < run_end; k0 += kProductStep) {
      load_operand<Tile>(a, n, k0, run_end, i0, s.rows, a_tile);
      load_operand<Tile>(b, n, k0, run_end, j0, s.columns, b_tile);
      __syncthreads();
      for (unsigned k = 0; k < kProductStep; ++k) {
        for (int p = 0; p < R; ++p) {
          for (int q = 0; q < R; ++q) sum[p][q] += a_tile[k][row + 16 * p] * b_tile[k][column + 16 * q];
        }
      }
      __syncthreads();
    }
    for (int p = 0; p < R; ++p) {
      for (int q = 0; q < R; ++q) total[p][q] += static_cast<double>(sum[p][q]);
    }
  }
  for (int p = 0; p < R; ++p) {
    for (int q = 0; q < R; ++q) {
      const unsigned i = i0 + row + 16 * static_cast<unsigned>(p);
      const unsigned j = j0 + column + 16 * static_cast<unsigned>(q);
      if (i >= s.rows || j >= s.columns) continue;
      if (partial == nullptr) {
        store(n, i, j, total[p][q]);
      } else {
        partial[((static_cast<std::size_t>(n) * s.splits + blockIdx.y) * s.rows + i) * s.columns + j] = total[p][q];
      }
    }
  }
}

/// Adds the splits up; below the diagonal of a symmetric product it takes what lies above it.
template <int Tile, class Store>
__global__ void finish_product_kernel(Store store, ProductShape s, const double* partial, unsigned images) {
  const unsigned size = s.rows * s.columns;
  for (std::size_t e = first(); e < std::size_t{images} * size; e += step()) {
    const auto n = static_cast<unsigned>(e / size);
    const unsigned i = static_cast<unsigned>(e % size) / s.columns;
    const unsigned j = static_cast<unsigned>(e % size) % s.columns;
    const bool mirror = s.symmetric && j / Tile < i / Tile;
    double sum = 0;
    for (unsigned split = 0; split < s.splits; ++split) {
      sum += partial[((static_cast<std::size_t>(n) * s.splits + split) * s.rows + (mirror ? j : i)) * s.columns +
                     (mirror ? i : j)];
    }
    store(n, i, j, sum);
  }
}

template <int Tile, class A, class B, class Store>
void product_of_tiles(const A& a, const B& b, const Store& store, std::int64_t images, ProductShape s) {
  const unsigned tiles = ceil_div(s.rows, Tile) * ceil_div(s.columns, Tile);
  // At least two runs per block, at most about four blocks for each of Hopper's 132 multiprocessors.
  const std::int64_t most = std::max<std::int64_t>(528 / (static_cast<std::int64_t>(tiles) * images), 1);
  s.splits = static_cast<unsigned>(std::clamp<std::int64_t>(s.depth / (2 * kProductRun), 1, most));
  const dim3 grid(tiles, s.splits, static_cast<unsigned>(images));
  if (s.splits == 1 && !s.symmetric) {
    launch(product_kernel<Tile, A, B, Store>, grid, kBlock, a, b, store, s, static_cast<double*>(nullptr));
    return;
  }
  const std::int64_t results = static_cast<std::int64_t>(s.rows) * s.columns;
  const Scratch partial(static_cast<std::size_t>(images * results * s.splits) * sizeof(double));
  launch(product_kernel<Tile, A, B, Store>, grid, kBlock, a, b, store, s, partial.as<double>());
  launch(finish_product_kernel<Tile, Store>, grid_for(images * results), kBlock, store, s, partial.as<double>(),
         static_cast<unsigned>(images));
}

/// out(n, i, j) = sum_k a(n, k, i) b(n, k, j) for `images` values of n; see Note [operands].
template <class A, class B, class Store>
void product(const A& a, const B& b, const Store& store, std::int64_t images, std::int64_t rows, std::int64_t columns,
             std::int64_t depth, bool symmetric = false) {
  const ProductShape s{static_cast<unsigned>(rows), static_cast<unsigned>(columns), static_cast<unsigned>(depth), 1,
                       symmetric};
  if (std::min(rows, columns) <= 32) {
    product_of_tiles<32>(a, b, store, images, s);
  } else {
    product_of_tiles<64>(a, b, store, images, s);
  }
}

/// out [images][channels][channels] = the products of all pairs of channels of f(image, position, channel).
template <class F>
void channel_products(const F& f, double* out, std::int64_t images, std::int64_t positions, std::int64_t channels) {
  const OverPositions<F> x{f};
  const auto c = static_cast<unsigned>(channels);
  product(x, x, StoreMatrix<double>{out, c, c}, images, channels, channels, positions, true);
}

}  // namespace limbeck::cuda
