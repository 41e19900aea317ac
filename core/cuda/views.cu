// What this is: the three kernels that tensors need before there is any op: copy between views, fill, add. Any strides
// and element types; 16-byte vectors where all sides are consecutive, square tiles where they are transposed.
#include <cstring>

#include "core/convert.h"
#include "core/cuda.h"
#include "core/cuda/kernel.cuh"
#include "core/cuda/nest.h"

namespace limbeck::cuda {
namespace {

/// As convert() of core/convert.h.
template <class To, class From>
__device__ inline To converted(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bfloat16>) {
    return converted<To>(to_float(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return from_float<bfloat16>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    return saturate<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

/// Offsets of item `i` of the nest in views 0 and 1.
__device__ inline void locate(const Nest<2>& nest, unsigned i, int lanes, std::int64_t& at0, std::int64_t& at1) {
  at0 = 0;
  at1 = 0;
  for (int l = 0; l < nest.count; ++l) {
    const unsigned k = l + 1 < nest.count ? i % nest.size[l] : i;
    i = l + 1 < nest.count ? i / nest.size[l] : 0;
    const auto steps = static_cast<std::int64_t>(l == 0 ? k * static_cast<unsigned>(lanes) : k);
    at0 += steps * nest.stride[0][l];
    at1 += steps * nest.stride[1][l];
  }
}

template <class To, class From>
__global__ void copy_kernel(Nest<2> nest, const From* __restrict__ source, To* __restrict__ destination) {
  for (unsigned i = first(); i < nest.total; i += step()) {
    std::int64_t d;
    std::int64_t s;
    locate(nest, i, 1, d, s);
    destination[d] = converted<To>(source[s]);
  }
}

/// Both sides consecutive: V elements at once, of f32 or bf16.
template <int V, class To, class From>
__global__ void copy_vectors_kernel(Nest<2> nest, const From* __restrict__ source, To* __restrict__ destination) {
  for (unsigned i = first(); i < nest.total; i += step()) {
    std::int64_t d;
    std::int64_t s;
    locate(nest, i, V, d, s);
    float v[V];
    load<V>(source + s, v);
    store<V>(destination + d, v);
  }
}

/// Planes of p x q elements: the destination is consecutive along q, the source along p. One tile of 32 x 32 per block
/// goes through shared memory (the odd row length keeps its columns in different banks).
template <class T>
__global__ void transpose_kernel(const T* __restrict__ source, T* __restrict__ destination, unsigned np, unsigned nq,
                                 std::int64_t source_q, std::int64_t destination_p, std::int64_t source_plane,
                                 std::int64_t destination_plane) {
  __shared__ T tile[32][33];
  const unsigned lane = threadIdx.x % 32;
  const unsigned row = threadIdx.x / 32;  // 8 rows at a time
  const T* s = source + blockIdx.z * source_plane;
  T* d = destination + blockIdx.z * destination_plane;
  for (unsigned k = row; k < 32; k += 8) {
    const unsigned p = blockIdx.x * 32 + lane;
    const unsigned q = blockIdx.y * 32 + k;
    if (p < np && q < nq) tile[k][lane] = s[q * source_q + p];
  }
  __syncthreads();
  for (unsigned k = row; k < 32; k += 8) {
    const unsigned p = blockIdx.x * 32 + k;
    const unsigned q = blockIdx.y * 32 + lane;
    if (p < np && q < nq) d[p * destination_p + q] = tile[lane][k];
  }
}

/// True if the copy was a transposition of planes and has been started.
template <class T>
bool try_transpose(const Nest<2>& nest, const T* source, T* destination) {
  if (nest.count < 2 || nest.count > 3) return false;
  if (nest.stride[0][0] != 1 || nest.stride[1][0] == 1) return false;
  const int p = nest.stride[1][1] == 1 ? 1 : 2;
  if (p >= nest.count || nest.stride[1][p] != 1 || nest.size[0] < 8 || nest.size[p] < 8) return false;
  const int plane = 3 - p;  // the remaining loop
  const bool planes = nest.count == 3;
  const unsigned count = planes ? nest.size[plane] : 1;
  if (count > 65535 || (nest.size[0] + 31) / 32 > 65535) return false;
  launch(transpose_kernel<T>, dim3((nest.size[p] + 31) / 32, (nest.size[0] + 31) / 32, count), 256, source, destination,
         nest.size[p], nest.size[0], nest.stride[1][0], nest.stride[0][p], planes ? nest.stride[1][plane] : 0,
         planes ? nest.stride[0][plane] : 0);
  return true;
}

template <class To, class From>
void copy(const TensorView& source, const TensorView& destination) {
  constexpr bool kVectors = (std::is_same_v<To, float> || std::is_same_v<To, bfloat16>)&&(
      std::is_same_v<From, float> || std::is_same_v<From, bfloat16>);
  constexpr int kWidth = sizeof(To) < sizeof(From) ? kLanes<To> : kLanes<From>;
  int lanes = kVectors ? kWidth : 1;
  const auto nest = make_nest<2>({&destination, &source}, lanes);
  if constexpr (kVectors) {
    const bool repeats = nest.stride[1][0] != 1;  // one source element for all: nothing to load as a vector
    if (lanes > 1 && !repeats) {
      launch(copy_vectors_kernel<kWidth, To, From>, grid_for(nest.total), kBlock, nest, source.ptr<const From>(),
             destination.ptr<To>());
      return;
    }
  }
  int one = 1;
  const auto plain = make_nest<2>({&destination, &source}, one);
  if constexpr (std::is_same_v<To, From> && sizeof(To) >= 2) {
    if (try_transpose(plain, source.ptr<const From>(), destination.ptr<To>())) return;
  }
  launch(copy_kernel<To, From>, grid_for(plain.total), kBlock, plain, source.ptr<const From>(), destination.ptr<To>());
}

__device__ inline std::int64_t place_of(const Nest<1>& nest, unsigned i) {
  std::int64_t at = 0;
  for (int l = 0; l < nest.count; ++l) {
    const unsigned k = l + 1 < nest.count ? i % nest.size[l] : i;
    i = l + 1 < nest.count ? i / nest.size[l] : 0;
    at += static_cast<std::int64_t>(k) * nest.stride[0][l];
  }
  return at;
}

template <class T>
__global__ void fill_kernel(Nest<1> nest, T value, T* destination) {
  for (unsigned i = first(); i < nest.total; i += step()) destination[place_of(nest, i)] = value;
}

/// 16 bytes at once, whatever their type.
__global__ void fill_vectors_kernel(uint4 value, uint4* destination, unsigned count) {
  for (unsigned i = first(); i < count; i += step()) destination[i] = value;
}

template <class T>
void fill(T element, const TensorView& destination) {
  constexpr auto kElements = static_cast<std::int64_t>(16 / sizeof(T));
  int one = 1;
  const auto nest = make_nest<1>({&destination}, one);
  const bool consecutive = nest.count == 1 && nest.stride[0][0] == 1 && aligned(destination.data);
  if (!consecutive || nest.total % kElements != 0) {
    launch(fill_kernel<T>, grid_for(nest.total), kBlock, nest, element, destination.ptr<T>());
    return;
  }
  uint4 value;
  for (std::int64_t i = 0; i < kElements; ++i)
    std::memcpy(reinterpret_cast<char*>(&value) + static_cast<std::size_t>(i) * sizeof(T), &element, sizeof(T));
  const std::int64_t count = nest.total / kElements;
  launch(fill_vectors_kernel, grid_for(count), kBlock, value, reinterpret_cast<uint4*>(destination.data), count);
}

template <class T>
__device__ inline T sum_of(T a, T b) {
  return a + b;
}
__device__ inline bfloat16 sum_of(bfloat16 a, bfloat16 b) { return from_float<bfloat16>(to_float(a) + to_float(b)); }

template <class T>
__global__ void add_kernel(Nest<2> nest, const T* source, T* destination) {
  for (unsigned i = first(); i < nest.total; i += step()) {
    std::int64_t d;
    std::int64_t s;
    locate(nest, i, 1, d, s);
    destination[d] = sum_of(destination[d], source[s]);
  }
}

template <int V, class T>
__global__ void add_vectors_kernel(Nest<2> nest, const T* source, T* destination) {
  for (unsigned i = first(); i < nest.total; i += step()) {
    std::int64_t d;
    std::int64_t s;
    locate(nest, i, V, d, s);
    float a[V];
    float b[V];
    load<V>(destination + d, a);
    load<V>(source + s, b);
    for (int j = 0; j < V; ++j) a[j] += b[j];
    store<V>(destination + d, a);
  }
}

template <class T>
void add(const TensorView& source, const TensorView& destination) {
  if constexpr (!std::is_same_v<T, double>) {
    int lanes = kLanes<T>;
    const auto nest = make_nest<2>({&destination, &source}, lanes);
    if (lanes > 1 && nest.stride[1][0] == 1) {
      launch(add_vectors_kernel<kLanes<T>, T>, grid_for(nest.total), kBlock, nest, source.ptr<const T>(),
             destination.ptr<T>());
      return;
    }
  }
  int one = 1;
  const auto nest = make_nest<2>({&destination, &source}, one);
  launch(add_kernel<T>, grid_for(nest.total), kBlock, nest, source.ptr<const T>(), destination.ptr<T>());
}

}  // namespace

void copy_view(Device device, const TensorView& source, const TensorView& destination) {
  LIMBECK_CHECK(source.shape == destination.shape, "copy_view", "shapes {} and {} differ", source.shape,
                destination.shape);
  if (destination.numel() == 0) return;
  activate(device, "copy");
  visit_dtype(source.dtype, [&](auto from) {
    visit_dtype(destination.dtype, [&](auto to) { copy<decltype(to), decltype(from)>(source, destination); });
  });
}

void fill_view(Device device, double value, const TensorView& destination) {
  if (destination.numel() == 0) return;
  activate(device, "fill");
  visit_dtype(destination.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, bfloat16>) {
      fill(bfloat16(static_cast<float>(value)), destination);
    } else {
      fill(static_cast<T>(value), destination);
    }
  });
}

void add_view(Device device, const TensorView& source, const TensorView& destination) {
  LIMBECK_CHECK(source.shape == destination.shape && source.dtype == destination.dtype, "add_view",
                "got {} {} and {} {}, expected one type and shape", name_of(source.dtype), source.shape,
                name_of(destination.dtype), destination.shape);
  if (destination.numel() == 0) return;
  activate(device, "add");
  if (source.dtype == DType::kF64) return add<double>(source, destination);
  visit_fast_dtype("add", source.dtype, [&](auto tag) { add<decltype(tag)>(source, destination); });
}

}  // namespace limbeck::cuda
