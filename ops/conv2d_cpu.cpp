// What this is: the fast CPU kernels of conv2d: choice of the engine, channel groups, bias sums.
// Read next: ops/conv2d_tiles.h.
#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "ops/conv2d_engine.h"
#include "ops/conv2d_kernels.h"
#include "ops/conv2d_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace limbeck::ops {
namespace {

constexpr const char* kName = "conv2d";

/// The weights of one group as pack_weights wants them.
struct PackShape {
  std::int64_t filters, taps, channels;
  bool transposed;
  PackShape(const Shape& w, const Conv2dOptions& options, bool transposed_)
      : filters(w[0] / options.groups), taps(w[2] * w[3]), channels(w[1]), transposed(transposed_) {
    if (merges_taps(conv_geometry(w, w, w, options, transposed), channels)) {  // of which only the kernel matters
      taps = w[2];
      channels *= w[3];
    }
  }
  template <class T>
  [[nodiscard]] std::int64_t size() const {
    return packed_weights_size<T>(taps, transposed ? filters : channels, transposed ? channels : filters);
  }
};

template <class T>
void forward_typed(const TensorView& x, const T* packed, const Shape& w, const ConvEpilogue& e,
                   const Conv2dOptions& options, const TensorView& y) {
  GatherMultiply<T> job{x.ptr<T>(), x.c(), w[1], packed, w[0] / options.groups, y.ptr<T>(), y.c()};
  job.act = e.act;
  job.bias = e.bias.defined() ? e.bias.ptr<float>() : nullptr;
  job.residual = e.residual.defined() ? e.residual.ptr<T>() : nullptr;
  const GatherGeometry geometry = conv_geometry(x.shape, w, y.shape, options, false);
  const GatherPlan& plan = gather_plan(geometry);
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_multiply(plan, job);
    job.source += job.depth;
    job.packed += PackShape(w, options, false).size<T>();
    job.result += job.columns;
    if (job.bias != nullptr) job.bias += job.columns;
    if (job.residual != nullptr) job.residual += job.columns;
  }
}

template <class T>
void backward_data_typed(const TensorView& gy, const T* packed, const Shape& w, const TensorView& bias,
                         const Conv2dOptions& options, const TensorView& gx) {
  GatherMultiply<T> job{gy.ptr<T>(), gy.c(), w[0] / options.groups, packed, w[1], gx.ptr<T>(), gx.c()};
  job.bias = bias.defined() ? bias.ptr<float>() : nullptr;
  const GatherGeometry geometry = conv_geometry(gx.shape, w, gy.shape, options, true);
  const GatherPlan& plan = gather_plan(geometry);
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_multiply(plan, job);
    job.source += job.depth;
    job.packed += PackShape(w, options, true).size<T>();
    job.result += job.columns;
    if (job.bias != nullptr) job.bias += job.columns;
  }
}

template <class T>
void backward_weights_typed(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                            const TensorView& gw) {
  const std::int64_t filters = gw.n() / options.groups;
  const GatherGeometry geometry = conv_geometry(x.shape, gw.shape, gy.shape, options, false);
  const GatherPlan& plan = gather_plan(geometry);
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_weights(plan, x.ptr<T>() + g * gw.c(), x.c(), gw.c(), gy.ptr<T>() + g * filters, gy.c(), filters,
                   gw.ptr<float>() + g * filters * gw.c() * gw.h() * gw.w());
  }
}

}  // namespace

bool has_matrix_units() noexcept {
#if defined(__x86_64__)
  static const bool found = [] {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    constexpr unsigned kAmxBf16 = 1U << 22U;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxBf16) != 0;
  }();
  return found;
#else
  return false;
#endif
}

bool use_onednn_conv(DType dtype) noexcept {
  switch (ConvEngineGuard::engine()) {
    case ConvEngine::kTiles:
    case ConvEngine::kAmx: return false;
    case ConvEngine::kOneDnn: return true;
    case ConvEngine::kAuto: break;
  }
  return dtype == DType::kBF16 && has_matrix_units();
}

std::size_t tiles_packed_bytes(const Shape& w, const Conv2dOptions& options, bool transposed, DType dtype) {
  return visit_fast_dtype(kName, dtype, [&](auto zero) {
    using T = decltype(zero);
    return static_cast<std::size_t>(options.groups * PackShape(w, options, transposed).size<T>()) * sizeof(T);
  });
}

void tiles_pack(const TensorView& w, const Conv2dOptions& options, bool transposed, DType dtype, void* packed) {
  visit_fast_dtype(kName, dtype, [&](auto zero) {
    using T = decltype(zero);
    const PackShape shape(w.shape, options, transposed);
    for (std::int64_t g = 0; g < options.groups; ++g) {
      pack_weights<T>(w.ptr<float>() + g * shape.filters * shape.taps * shape.channels, shape.filters, shape.taps,
                      shape.channels, transposed, static_cast<T*>(packed) + g * shape.size<T>());
    }
  });
}

void tiles_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                   const Conv2dOptions& options, const TensorView& y) {
  visit_fast_dtype(kName, x.dtype, [&](auto zero) {
    using T = decltype(zero);
    forward_typed<T>(x, static_cast<const T*>(packed), w, epilogue, options, y);
  });
}

void tiles_backward_data(const TensorView& gy, const void* packed, const Shape& w, const TensorView& bias,
                         const Conv2dOptions& options, const TensorView& gx) {
  visit_fast_dtype(kName, gy.dtype, [&](auto zero) {
    using T = decltype(zero);
    backward_data_typed<T>(gy, static_cast<const T*>(packed), w, bias, options, gx);
  });
}

void tiles_backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                            const TensorView& gw) {
  visit_fast_dtype(kName, x.dtype, [&](auto zero) { backward_weights_typed<decltype(zero)>(x, gy, options, gw); });
}

void conv2d_forward_cpu(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                        const TensorView& y) {
  const ConvEpilogue epilogue{bias, {}, Activation::kNone};
  if (use_onednn_conv(x.dtype)) {
    const Workspace packed(onednn_packed_bytes(x.shape, w.shape, y.shape, epilogue, options, x.dtype));
    onednn_pack(x.shape, w, y.shape, epilogue, options, x.dtype, packed.as<void>());
    onednn_forward(x, packed.as<void>(), w.shape, epilogue, options, y);
    return;
  }
  const Workspace packed(tiles_packed_bytes(w.shape, options, false, x.dtype));
  tiles_pack(w, options, false, x.dtype, packed.as<void>());
  tiles_forward(x, packed.as<void>(), w.shape, epilogue, options, y);
}

void conv2d_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                              const Conv2dOptions& options, const TensorView& gx) {
  if (use_onednn_conv(gy.dtype)) {
    onednn_backward_data(gy, w, bias, options, gx);
    return;
  }
  const Workspace packed(tiles_packed_bytes(w.shape, options, true, gy.dtype));
  tiles_pack(w, options, true, gy.dtype, packed.as<void>());
  tiles_backward_data(gy, packed.as<void>(), w.shape, bias, options, gx);
}

void conv2d_backward_weights_cpu(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                 const TensorView& gw) {
  if (use_onednn_conv(x.dtype)) {
    onednn_backward_weights(x, gy, options, gw);
  } else {
    tiles_backward_weights(x, gy, options, gw);
  }
}

void channel_sum_cpu(const TensorView& gy, const TensorView& gbias) {
  const std::int64_t channels = gy.c();
  const std::int64_t pixels = gy.numel() / channels;
  const std::int64_t blocks = std::min(pixels, reduction_blocks(gy.numel(), 1 << 14));
  const Workspace partial(static_cast<std::size_t>(blocks * channels) * sizeof(float));
  visit_fast_dtype(kName, gy.dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(blocks, 1, [&](auto begin, auto end) {
      for (std::int64_t block = begin; block < end; ++block) {
        float* sums = partial.as<float>() + block * channels;
        std::fill_n(sums, channels, 0.0F);
        for (std::int64_t pixel = pixels * block / blocks; pixel < pixels * (block + 1) / blocks; ++pixel) {
          const T* row = gy.ptr<T>() + pixel * channels;
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) sums[c] += static_cast<float>(row[c]);
        }
      }
    });
  });
  for (std::int64_t c = 0; c < channels; ++c) {
    double sum = 0.0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      sum += static_cast<double>(partial.as<float>()[block * channels + c]);
    }
    gbias.ptr<float>()[c] = static_cast<float>(sum);
  }
}

}  // namespace limbeck::ops
