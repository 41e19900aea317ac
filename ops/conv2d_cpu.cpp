// What this is: the fast CPU kernels of conv2d: choice of the engine, channel groups, the merged first layer, bias sums.
// Read next: ops/conv2d_tiles.h.
//
// Note [merged taps]
//   A first layer sees 3 channels: per tap there is almost nothing to sum. But in channels-last memory the taps of one
//   kernel row lie side by side, so a kernel row is one tap of KW * 3 channels. For this the input is copied once into
//   a frame of zeros, after which no tap reads outside. In bf16 a pixel gets a fourth, zero channel (Note [pairs] of
//   ops/tile_gemm.h). The packed weights are the same as without merging.
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

/// True on processors with bf16 matrix units (AMX).
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

bool merges_taps(const Shape& w, const Conv2dOptions& options) {
  return w[1] < 16 && w[3] > 1 && options.groups == 1 && options.dilation[1] == 1;
}

/// Copies x into the middle of a zero frame, with `channels` >= x.c() per pixel.
template <class T>
void frame(const TensorView& x, const Conv2dOptions& options, std::int64_t channels, T* out) {
  const std::int64_t height = x.h() + 2 * options.padding[0];
  const std::int64_t width = x.w() + 2 * options.padding[1];
  const std::int64_t real = x.c();
  parallel_for(x.n() * height, 8, [&](auto begin, auto end) {
    for (std::int64_t line = begin; line < end; ++line) {
      T* to = out + line * width * channels;
      const std::int64_t row = line % height - options.padding[0];
      if (row < 0 || row >= x.h()) {
        std::fill_n(to, width * channels, T(0.0F));
        continue;
      }
      to = std::fill_n(to, options.padding[1] * channels, T(0.0F));
      const T* from = x.ptr<T>() + (line / height * x.h() + row) * x.w() * real;
      if (channels == real) {
        to = std::copy_n(from, x.w() * real, to);
      } else {
        for (std::int64_t i = 0; i < x.w(); ++i) {
          to = std::fill_n(std::copy_n(from + i * real, real, to), channels - real, T(0.0F));
        }
      }
      std::fill_n(to, options.padding[1] * channels, T(0.0F));
    }
  });
}

/// A framed input and the convolution that reads it, see Note [merged taps].
template <class T>
struct Framed {
  std::int64_t channels, depth;
  GatherGeometry geometry;
  Workspace memory;

  Framed(const TensorView& x, const Shape& w, const Shape& y, const Conv2dOptions& o)
      : channels(tile::round_up_pair<T>(x.c())),
        depth(w[3] * channels),
        geometry{y[0], y[2], y[3], x.h() + 2 * o.padding[0], x.w() + 2 * o.padding[1], {w[2], 1}, o.stride,
                 {0, 0}, {o.dilation[0], 1}, 0},
        memory(static_cast<std::size_t>(y[0] * geometry.source_height * geometry.source_width * channels) * sizeof(T)) {
    frame(x, o, channels, memory.template as<T>());
  }
};

template <class T>
std::int64_t packed_group_size(const Shape& w, std::int64_t groups, bool transposed) {
  const std::int64_t filters = w[0] / groups;
  return transposed ? packed_weights_size<T>(w[2] * w[3], filters, w[1])
                    : packed_weights_size<T>(w[2] * w[3], w[1], filters);
}

template <class T>
void forward_typed(const TensorView& x, const T* packed, const Shape& w, const ConvEpilogue& e,
                   const Conv2dOptions& options, const TensorView& y) {
  GatherMultiply<T> job{x.ptr<T>(), x.c(), w[1], packed, w[0] / options.groups, y.ptr<T>(), y.c()};
  job.act = e.act;
  job.bias = e.bias.defined() ? e.bias.ptr<float>() : nullptr;
  job.residual = e.residual.defined() ? e.residual.ptr<T>() : nullptr;
  if (merges_taps(w, options)) {
    const Framed<T> framed(x, w, y.shape, options);
    job.source = framed.memory.template as<T>();
    job.source_pixel = framed.channels;
    job.depth = framed.depth;
    gather_multiply(gather_plan(framed.geometry), job);
    return;
  }
  const GatherPlan& plan = gather_plan(conv_geometry(x.shape, w, y.shape, options, false));
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_multiply(plan, job);
    job.source += job.depth;
    job.packed += packed_group_size<T>(w, options.groups, false);
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
  const GatherPlan& plan = gather_plan(conv_geometry(gx.shape, w, gy.shape, options, true));
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_multiply(plan, job);
    job.source += job.depth;
    job.packed += packed_group_size<T>(w, options.groups, true);
    job.result += job.columns;
    if (job.bias != nullptr) job.bias += job.columns;
  }
}

template <class T>
void backward_weights_typed(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                            const TensorView& gw) {
  const std::int64_t filters = gw.n() / options.groups;
  auto* const out = gw.ptr<float>();
  if (merges_taps(gw.shape, options)) {
    const Framed<T> framed(x, gw.shape, gy.shape, options);
    const GatherPlan& plan = gather_plan(framed.geometry);
    const T* source = framed.memory.template as<T>();
    if (framed.channels == x.c()) {
      gather_weights(plan, source, framed.channels, framed.depth, gy.ptr<T>(), gy.c(), filters, out);
      return;
    }
    const std::int64_t columns = gw.n() * gw.h() * gw.w();
    const Workspace padded(static_cast<std::size_t>(columns * framed.channels) * sizeof(float));
    gather_weights(plan, source, framed.channels, framed.depth, gy.ptr<T>(), gy.c(), filters, padded.as<float>());
    for (std::int64_t k = 0; k < columns; ++k) {
      std::copy_n(padded.as<float>() + k * framed.channels, x.c(), out + k * x.c());
    }
    return;
  }
  const GatherPlan& plan = gather_plan(conv_geometry(x.shape, gw.shape, gy.shape, options, false));
  for (std::int64_t g = 0; g < options.groups; ++g) {
    gather_weights(plan, x.ptr<T>() + g * gw.c(), x.c(), gw.c(), gy.ptr<T>() + g * filters, gy.c(), filters,
                   out + g * filters * gw.c() * gw.h() * gw.w());
  }
}

}  // namespace

bool use_onednn_conv(DType dtype) noexcept {
  switch (ConvEngineGuard::engine()) {
    case ConvEngine::kTiles: return false;
    case ConvEngine::kOneDnn: return true;
    case ConvEngine::kAuto: break;
  }
  return dtype == DType::kBF16 && has_matrix_units();
}

std::size_t tiles_packed_bytes(const Shape& w, std::int64_t groups, bool transposed, DType dtype) {
  return visit_fast_dtype(kName, dtype, [&](auto zero) {
    using T = decltype(zero);
    return static_cast<std::size_t>(groups * packed_group_size<T>(w, groups, transposed)) * sizeof(T);
  });
}

void tiles_pack(const TensorView& w, std::int64_t groups, bool transposed, DType dtype, void* packed) {
  visit_fast_dtype(kName, dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t filters = w.n() / groups;
    for (std::int64_t g = 0; g < groups; ++g) {
      pack_weights<T>(w.ptr<float>() + g * filters * w.c() * w.h() * w.w(), filters, w.h() * w.w(), w.c(), transposed,
                      static_cast<T*>(packed) + g * packed_group_size<T>(w.shape, groups, transposed));
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
  const Workspace packed(tiles_packed_bytes(w.shape, options.groups, false, x.dtype));
  tiles_pack(w, options.groups, false, x.dtype, packed.as<void>());
  tiles_forward(x, packed.as<void>(), w.shape, epilogue, options, y);
}

void conv2d_backward_data_cpu(const TensorView& gy, const TensorView& w, const TensorView& bias,
                              const Conv2dOptions& options, const TensorView& gx) {
  if (use_onednn_conv(gy.dtype)) {
    onednn_backward_data(gy, w, bias, options, gx);
    return;
  }
  const Workspace packed(tiles_packed_bytes(w.shape, options.groups, true, gy.dtype));
  tiles_pack(w, options.groups, true, gy.dtype, packed.as<void>());
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
