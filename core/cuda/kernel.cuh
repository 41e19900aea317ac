// What this is: what kernels share: the launch, 16-byte vectors of f32 and bf16, sums over a warp and a block.
// The sources that include it are CUDA; the tests also compile them as C++ (tests/cuda_emulation), so they keep to what
//   that header offers: one-dimensional blocks of whole warps, shuffles, shared arrays of fixed size.
// Read next: core/cuda/views.cu.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "core/cuda/allocator.h"
#include "core/cuda/runtime.h"
#include "core/dtype.h"
#include "core/tensor.h"

namespace limbeck::cuda {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kFull = 0xFFFFFFFFU;  // all lanes of a warp
inline constexpr unsigned kBlock = 256;

/// Runs `kernel` on the stream of the current device.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, A&&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream();
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...), "kernel launch");
  check_launch();
}

[[nodiscard]] inline unsigned ceil_div(std::int64_t a, std::int64_t b) {
  return static_cast<unsigned>((a + b - 1) / b);
}

/// Blocks of `threads` that cover `count` items; kernels step through the rest if there are more.
[[nodiscard]] inline unsigned grid_for(std::int64_t count, unsigned threads = kBlock) {
  constexpr std::int64_t kMost = 1 << 20;
  const std::int64_t blocks = (count + threads - 1) / threads;
  return static_cast<unsigned>(blocks < kMost ? (blocks > 0 ? blocks : 1) : kMost);
}

/// The index of this thread in the grid, and the number of threads: `for (i = first(); i < n; i += step())`.
__device__ inline unsigned first() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline unsigned step() { return gridDim.x * blockDim.x; }

// --- elements -------------------------------------------------------------------------------------------------------

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(bfloat16 v) { return __uint_as_float(static_cast<unsigned>(v.bits) << 16U); }

template <class T>
__device__ inline T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
  return v;
}
template <>
__device__ inline bfloat16 from_float<bfloat16>(float v) {
  bfloat16 out;
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(v));
  return out;
}

/// Elements of 16 bytes.
template <class T>
inline constexpr int kLanes = 16 / static_cast<int>(sizeof(T));

__device__ inline unsigned pack(float low, float high) {
  return static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
         static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16U;
}
__device__ inline void unpack(unsigned pair, float& low, float& high) {
  low = __uint_as_float(pair << 16U);
  high = __uint_as_float(pair & 0xFFFF0000U);
}

/// V consecutive elements as floats; V is 1, or kLanes<T> with `p` aligned to 16 bytes.
template <int V, class T>
__device__ inline void load(const T* p, float (&out)[V]) {
  if constexpr (V == 1) {
    out[0] = to_float(*p);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(V % 4 == 0);
    for (int i = 0; i < V; i += 4) {
      const float4 q = *reinterpret_cast<const float4*>(p + i);
      out[i] = q.x, out[i + 1] = q.y, out[i + 2] = q.z, out[i + 3] = q.w;
    }
  } else {
    static_assert(V == 8);
    const uint4 q = *reinterpret_cast<const uint4*>(p);
    unpack(q.x, out[0], out[1]);
    unpack(q.y, out[2], out[3]);
    unpack(q.z, out[4], out[5]);
    unpack(q.w, out[6], out[7]);
  }
}

template <int V, class T>
__device__ inline void store(T* p, const float (&v)[V]) {
  if constexpr (V == 1) {
    *p = from_float<T>(v[0]);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(V % 4 == 0);
    for (int i = 0; i < V; i += 4) *reinterpret_cast<float4*>(p + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
  } else if constexpr (V == 4) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack(v[0], v[1]), pack(v[2], v[3]));
  } else {
    static_assert(V == 8);
    *reinterpret_cast<uint4*>(p) = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
  }
}

/// True if 16 bytes can be moved at once from there; null is aligned.
__host__ __device__ inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

/// Calls f(std::integral_constant<int, V>) with V = kLanes<T> if `row` and all `strides`-like numbers are multiples of it
/// and every pointer is aligned to 16 bytes (null is), else with 1.
template <class T, class F, class... P>
void visit_lanes(std::int64_t row, F&& f, P*... pointers) {
  if ((aligned(pointers) && ...) && row % kLanes<T> == 0) {
    f(std::integral_constant<int, kLanes<T>>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

// --- sums -----------------------------------------------------------------------------------------------------------
// The order of the additions is fixed by the positions of the threads, so results repeat bit for bit.

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN wins, as in a comparison by hand it would get lost.
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

/// Every lane gets the result over the `width` lanes (a power of two) that it belongs to.
template <class Op, class T>
__device__ inline T warp_all(T v, Op op, unsigned width = kWarp) {
  for (unsigned distance = width / 2; distance > 0; distance /= 2)
    v = op(v, __shfl_xor_sync(kFull, v, static_cast<int>(distance)));
  return v;
}

/// Every thread gets the result over the block. `scratch`: 32 elements of shared memory; may be used again afterwards.
template <class Op, class T>
__device__ inline T block_all(T v, Op op, T neutral, T* scratch) {
  v = warp_all(v, op);
  const unsigned warps = blockDim.x / kWarp;
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = v;
  __syncthreads();
  T total = threadIdx.x % kWarp < warps ? scratch[threadIdx.x % kWarp] : neutral;
  total = warp_all(total, op);
  __syncthreads();
  return total;
}

/// The sum of `count` numbers, for every thread of the only block: what blocks before have left.
__device__ inline double sum_all(const double* partial, unsigned count, double* scratch) {
  double sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += kBlock) sum += partial[i];
  return block_all(sum, Add{}, 0.0, scratch);
}

}  // namespace limbeck::cuda
