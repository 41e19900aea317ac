// What this is: see ops/winograd.h, Note [winograd].
#include "ops/winograd.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/lru_cache.h"
#include "ops/conv2d_tiles.h"
#include "ops/task_queue.h"

namespace limbeck::ops {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr std::int64_t kOut = 4;            // a patch of the result is kOut x kOut
constexpr std::int64_t kIn = 6;             // and needs kIn x kIn inputs
constexpr std::int64_t kFrame = kIn * kIn;  // matrix products
constexpr std::int64_t kRowPad = 16;        // keeps the rows of an operand from sharing cache sets
constexpr std::int64_t kMinChannels = 32;
constexpr double kOverhead = 1.6;                // transforms and memory, relative to the products
constexpr std::int64_t kSmallWeights = 3 << 20;  // bytes: every thread can stream them for each of its blocks
constexpr std::int64_t kBlockBytes = 640 << 10;  // transformed input and output of one thread's block

struct PatchKey {
  std::int64_t images, height, width, dilation;
};

/// Where a patch starts: result pixel (row, column) of an image. Its pixels are `dilation` apart.
struct Patch {
  std::int32_t image, row, column;
};

std::int64_t patches_per_axis(std::int64_t size, std::int64_t dilation) {
  std::int64_t count = 0;
  for (std::int64_t a = 0; a < std::min(dilation, size); ++a)
    count += ((size - a + dilation - 1) / dilation + kOut - 1) / kOut;
  return count;
}

const std::vector<Patch>& patches(PatchKey key) {
  thread_local LruCache<PatchKey, std::vector<Patch>> cache(64);
  return cache.get(key, [&] {
    const auto starts = [&](std::int64_t size) {
      std::vector<std::int64_t> list;
      for (std::int64_t a = 0; a < std::min(key.dilation, size); ++a) {
        for (std::int64_t s = a; s < size; s += kOut * key.dilation) list.push_back(s);
      }
      return list;
    };
    std::vector<Patch> all;
    for (std::int64_t n = 0; n < key.images; ++n) {
      for (const auto row : starts(key.height)) {
        for (const auto column : starts(key.width)) {
          all.push_back(
              {static_cast<std::int32_t>(n), static_cast<std::int32_t>(row), static_cast<std::int32_t>(column)});
        }
      }
    }
    return all;
  });
}

// --- the one-dimensional transforms ------------------------------------------------------------------------------

/// B^T x
[[gnu::always_inline]] inline void transform_in(const Vec (&x)[kIn], Vec (&t)[kIn]) {
  const Vec even = x[4] - 4.0F * x[2];
  const Vec odd = x[3] - 4.0F * x[1];
  const Vec near = x[4] - x[2];
  const Vec far = 2.0F * (x[3] - x[1]);
  t[0] = 4.0F * x[0] - 5.0F * x[2] + x[4];
  t[1] = even + odd;
  t[2] = even - odd;
  t[3] = near + far;
  t[4] = near - far;
  t[5] = 4.0F * x[1] - 5.0F * x[3] + x[5];
}

/// A^T m
[[gnu::always_inline]] inline void transform_out(const Vec (&m)[kIn], Vec (&y)[kOut]) {
  const Vec sum1 = m[1] + m[2];
  const Vec difference1 = m[1] - m[2];
  const Vec sum2 = m[3] + m[4];
  const Vec difference2 = m[3] - m[4];
  y[0] = m[0] + sum1 + sum2;
  y[1] = difference1 + 2.0F * difference2;
  y[2] = sum1 + 4.0F * sum2;
  y[3] = difference1 + 8.0F * difference2 + m[5];
}

/// G w, for three weights
std::array<double, kIn> transform_weights(double a, double b, double c) {
  return {a / 4.0, -(a + b + c) / 6.0, -(a - b + c) / 6.0, a / 24.0 + b / 12.0 + c / 6.0, a / 24.0 - b / 12.0 + c / 6.0,
          c};
}

// --- one convolution ------------------------------------------------------------------------------------------------

struct Winograd {
  const TensorView& x;
  const TensorView& y;
  const float* packed;
  const ConvEpilogue& epilogue;
  const Conv2dOptions& options;
  const std::vector<Patch>& all;
  std::int64_t dilation, channels, filters, in_stride, out_stride;

  Winograd(const TensorView& x_, const void* packed_, const ConvEpilogue& e, const Conv2dOptions& o,
           const TensorView& y_)
      : x(x_),
        y(y_),
        packed(static_cast<const float*>(packed_)),
        epilogue(e),
        options(o),
        all(patches({y_.n(), y_.h(), y_.w(), o.dilation[0]})),
        dilation(o.dilation[0]),
        channels(x_.c()),
        filters(y_.c()),
        in_stride(x_.c() + kRowPad),
        out_stride(y_.c() + kRowPad) {}

  /// V[frame][patch][channel] of patch number `p` of the block.
  void input(const Patch& patch, std::int64_t p, std::int64_t block, float* v) const {
    std::array<const float*, kFrame> pixel{};
    const std::int64_t row0 = patch.row - options.padding[0];
    const std::int64_t column0 = patch.column - options.padding[1];
    for (std::int64_t i = 0; i < kIn; ++i) {
      for (std::int64_t j = 0; j < kIn; ++j) {
        const std::int64_t r = row0 + i * dilation;
        const std::int64_t c = column0 + j * dilation;
        const bool inside = r >= 0 && r < x.h() && c >= 0 && c < x.w();
        pixel[static_cast<std::size_t>(i * kIn + j)] =
            inside ? x.ptr<float>() + ((patch.image * x.h() + r) * x.w() + c) * channels : nullptr;
      }
    }
    for (std::int64_t c = 0; c < channels; c += kLanes) {
      const std::int64_t count = std::min(kLanes, channels - c);
      Vec columns[kIn][kIn];  // [column][frame row]
      for (std::int64_t j = 0; j < kIn; ++j) {
        Vec d[kIn];
        for (std::int64_t i = 0; i < kIn; ++i) {
          const float* at = pixel[static_cast<std::size_t>(i * kIn + j)];
          d[i] = at == nullptr ? Vec{} : count == kLanes ? simd::load(at + c) : simd::load_some(at + c, count);
        }
        transform_in(d, columns[j]);
      }
      for (std::int64_t i = 0; i < kIn; ++i) {
        Vec row[kIn];
        Vec t[kIn];
        for (std::int64_t j = 0; j < kIn; ++j) row[j] = columns[j][i];
        transform_in(row, t);
        for (std::int64_t j = 0; j < kIn; ++j) {
          // The rows are padded, so whole vectors may be written; the products read only `channels` of them.
          simd::store(v + ((i * kIn + j) * block + p) * in_stride + c, t[j]);
        }
      }
    }
  }

  /// M[frame] = V[frame] U[frame] for the panels first .. last-1 of the weights.
  void product(std::int64_t frame, std::int64_t first, std::int64_t last, std::int64_t count, std::int64_t block,
               const float* v, float* m) const {
    const tile::Panels panels{filters};
    const tile::Segment whole{0, 0, channels};
    const float* weights = packed + frame * channels * panels.padded();
    std::array<std::int64_t, tile::kRows> offsets{};
    for (std::int64_t p = first; p < last; ++p) {
      const auto& kernels =
          panels.width(p) == tile::kColumns ? tile::Kernels<float>::wide : tile::Kernels<float>::narrow;
      for (std::int64_t t = 0; t < count; t += tile::kRows) {
        const auto rows = static_cast<std::size_t>(std::min<std::int64_t>(tile::kRows, count - t));
        for (std::size_t i = 0; i < rows; ++i) offsets[i] = static_cast<std::int64_t>(i) * out_stride;
        tile::Finish<float> finish;
        finish.y = m + (frame * block + t) * out_stride + p * tile::kColumns;
        finish.row_offset = offsets.data();
        finish.columns = panels.used(p);
        kernels[rows - 1](v + (frame * block + t) * in_stride, in_stride, weights + p * tile::kColumns * channels,
                          &whole, 1, finish);
      }
    }
  }

  /// The 4x4 results of patch number `p` of the block, with the epilogue.
  void output(const Patch& patch, std::int64_t p, std::int64_t block, const float* m) const {
    const float* bias = epilogue.bias.defined() ? epilogue.bias.ptr<float>() : nullptr;
    const float* residual = epilogue.residual.defined() ? epilogue.residual.ptr<float>() : nullptr;
    for (std::int64_t c = 0; c < filters; c += kLanes) {
      const std::int64_t count = std::min(kLanes, filters - c);
      const bool full = count == kLanes;
      const auto get = [&](const float* at) { return full ? simd::load(at) : simd::load_some(at, count); };
      Vec columns[kIn][kOut];
      for (std::int64_t j = 0; j < kIn; ++j) {
        Vec frame[kIn];
        for (std::int64_t i = 0; i < kIn; ++i) frame[i] = get(m + ((i * kIn + j) * block + p) * out_stride + c);
        transform_out(frame, columns[j]);
      }
      const Vec add = bias != nullptr ? get(bias + c) : Vec{};
      for (std::int64_t i = 0; i < kOut; ++i) {
        const std::int64_t r = patch.row + i * dilation;
        if (r >= y.h()) break;
        Vec row[kIn];
        Vec values[kOut];
        for (std::int64_t j = 0; j < kIn; ++j) row[j] = columns[j][i];
        transform_out(row, values);
        for (std::int64_t j = 0; j < kOut; ++j) {
          const std::int64_t column = patch.column + j * dilation;
          if (column >= y.w()) break;
          const std::int64_t at = ((patch.image * y.h() + r) * y.w() + column) * filters + c;
          Vec value = values[j] + add;
          if (residual != nullptr) value += get(residual + at);
          value = simd::activate(epilogue.act, value);
          if (full) {
            simd::store(y.ptr<float>() + at, value);
          } else {
            simd::store_some(y.ptr<float>() + at, value, count);
          }
        }
      }
    }
  }

  [[nodiscard]] std::size_t block_bytes(std::int64_t block) const {
    return static_cast<std::size_t>(kFrame * block * (in_stride + out_stride)) * sizeof(float);
  }

  /// Many patches, small weights: each thread takes blocks of patches through all three steps, inside its cache.
  void run_blocks() const {
    const auto total = static_cast<std::int64_t>(all.size());
    const auto row_bytes = static_cast<std::int64_t>(block_bytes(1));
    const std::int64_t block = std::max<std::int64_t>(1, kBlockBytes / row_bytes / tile::kRows) * tile::kRows;
    parallel_tasks_with((total + block - 1) / block, [&] { return Workspace(block_bytes(block)); },
                        [&](const Workspace& memory, std::int64_t task) {
                          auto* const v = memory.as<float>();
                          auto* const m = v + kFrame * block * in_stride;
                          const std::int64_t first = task * block;
                          const std::int64_t count = std::min(block, total - first);
                          for (std::int64_t p = 0; p < count; ++p)
                            input(all[static_cast<std::size_t>(first + p)], p, block, v);
                          const std::int64_t panels = tile::Panels{filters}.count();
                          for (std::int64_t frame = 0; frame < kFrame; ++frame)
                            product(frame, 0, panels, count, block, v, m);
                          for (std::int64_t p = 0; p < count; ++p)
                            output(all[static_cast<std::size_t>(first + p)], p, block, m);
                        });
  }

  /// Few patches, large weights: all threads share each step, so that the weights are read from memory once.
  void run_steps() const {
    const auto total = static_cast<std::int64_t>(all.size());
    constexpr std::int64_t kMostPatches = 384;
    const std::int64_t panels = tile::Panels{filters}.count();
    const std::int64_t ranges = std::max<std::int64_t>(1, panels / 4);
    const std::int64_t block = std::min(total, kMostPatches);
    const Workspace memory(block_bytes(block));
    auto* const v = memory.as<float>();
    auto* const m = v + kFrame * block * in_stride;
    for (std::int64_t first = 0; first < total; first += block) {
      const std::int64_t count = std::min(block, total - first);
      parallel_tasks(count, [&](std::int64_t p) { input(all[static_cast<std::size_t>(first + p)], p, block, v); });
      parallel_tasks(kFrame * ranges, [&](std::int64_t task) {
        const std::int64_t range = task % ranges;
        product(task / ranges, panels * range / ranges, panels * (range + 1) / ranges, count, block, v, m);
      });
      parallel_tasks(count, [&](std::int64_t p) { output(all[static_cast<std::size_t>(first + p)], p, block, m); });
    }
  }
};

}  // namespace

bool winograd_pays(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& o) {
  const bool fits = o.groups == 1 && w[2] == 3 && w[3] == 3 && o.stride[0] == 1 && o.stride[1] == 1 &&
                    o.dilation[0] == o.dilation[1] && w[0] >= kMinChannels && w[1] >= kMinChannels;
  if (!fits) return false;
  const auto taps_inside = [&](std::size_t axis) {  // of all result positions of one axis
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < 3; ++k) {
      const std::int64_t shift = k * o.dilation[axis] - o.padding[axis];
      sum += std::max<std::int64_t>(0, std::min(y[2 + axis], x[2 + axis] - shift) - std::max<std::int64_t>(0, -shift));
    }
    return sum;
  };
  const std::int64_t products = patches_per_axis(y[2], o.dilation[0]) * patches_per_axis(y[3], o.dilation[1]) * kFrame;
  return kOverhead * static_cast<double>(products) < static_cast<double>(taps_inside(0) * taps_inside(1));
}

std::size_t winograd_packed_bytes(const Shape& w) {
  return static_cast<std::size_t>(kFrame * w[1] * tile::Panels{w[0]}.padded()) * sizeof(float);
}

void winograd_pack(const TensorView& w, void* packed) {
  const std::int64_t filters = w.n();
  const std::int64_t channels = w.c();
  const std::int64_t matrix = channels * filters;
  const Workspace memory(static_cast<std::size_t>(kFrame * matrix) * sizeof(float));  // [frame][filter][channel]
  auto* const u = memory.as<float>();
  parallel_for(matrix, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const float* source = w.ptr<float>() + k / channels * 9 * channels + k % channels;  // [filter][3][3][channel]
      const auto g = [&](std::int64_t i, std::int64_t j) {
        return static_cast<double>(source[(i * 3 + j) * channels]);
      };
      std::array<std::array<double, kIn>, 3> columns;
      for (std::int64_t j = 0; j < 3; ++j)
        columns[static_cast<std::size_t>(j)] = transform_weights(g(0, j), g(1, j), g(2, j));
      for (std::size_t i = 0; i < kIn; ++i) {
        const auto row = transform_weights(columns[0][i], columns[1][i], columns[2][i]);
        for (std::size_t j = 0; j < kIn; ++j) {
          u[static_cast<std::int64_t>(i * kIn + j) * matrix + k] = static_cast<float>(row[j]);
        }
      }
    }
  });
  const std::int64_t packed_matrix = channels * tile::Panels{filters}.padded();
  for (std::int64_t frame = 0; frame < kFrame; ++frame) {
    pack_weights<float>(u + frame * matrix, filters, 1, channels, false,
                        static_cast<float*>(packed) + frame * packed_matrix);
  }
}

void winograd_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                      const Conv2dOptions& options, const TensorView& y) {
  const Winograd job(x, packed, epilogue, options, y);
  if (static_cast<std::int64_t>(winograd_packed_bytes(w)) <= kSmallWeights) {
    job.run_blocks();
  } else {
    job.run_steps();
  }
}

}  // namespace limbeck::ops
