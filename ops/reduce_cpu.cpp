// Fast reductions, f32 and bf16. After sorting by memory (ops/strided_loop.h), three plans cover what networks need:
//   one long row          sum of everything: blocks, each reduced in 16 lanes
//   rows                  the innermost dimension is reduced, e.g. over the channels of a pixel
//   columns               the innermost dimension is kept, e.g. per channel over N, H, W in channels-last memory
// The rest goes through the plain loop. See Note [repeatable sums] in ops/reduce.h.
#include <array>
#include <limits>

#include "core/memory.h"
#include "ops/pixel_tile.h"
#include "ops/reduce_kernels.h"
#include "ops/reduce_loop.h"
#include "ops/strided_loop.h"

namespace limbeck::ops {
namespace {

struct SumOp {
  static constexpr float start = 0.0F;
  template <class A>
  static A combine(A a, A b) {
    return a + b;
  }
};
struct MaxOp {
  static constexpr float start = -std::numeric_limits<float>::infinity();
  template <class A>
  static A combine(A a, A b) {
    return b > a || b != b ? b : a;
  }  // keeps a NaN
};

/// Reduction of `n` elements that are `stride` apart: float within a run, double across runs.
template <class Op, class T>
double reduce_run(const T* p, std::int64_t stride, std::int64_t n) {
  constexpr std::int64_t kLanes = 16;
  constexpr std::int64_t kRun = 4096;
  double total = Op::start;
  for (std::int64_t begin = 0; begin < n; begin += kRun) {
    const std::int64_t end = std::min(n, begin + kRun);
    std::int64_t i = begin;
    float partial = Op::start;
    if (stride == 1 && end - begin >= 4 * kLanes) {
      // A fixed number of lanes, folded in order: the same result whatever the vector width of the machine.
      std::array<float, kLanes> lanes;
      lanes.fill(Op::start);
      for (; i + kLanes <= end; i += kLanes) {
#pragma omp simd
        for (std::int64_t k = 0; k < kLanes; ++k) {
          lanes[static_cast<std::size_t>(k)] =
              Op::combine(lanes[static_cast<std::size_t>(k)], static_cast<float>(p[i + k]));
        }
      }
      for (const float v : lanes) partial = Op::combine(partial, v);
    }
    for (; i < end; ++i) partial = Op::combine(partial, static_cast<float>(p[i * stride]));
    total = Op::combine(total, static_cast<double>(partial));
  }
  return total;
}

template <class To>
void store(To* y, double scale, double value) {
  *y = static_cast<To>(static_cast<float>(scale * value));
}

constexpr std::int64_t kGrain = 16384;

template <class Op, class T, class To>
void reduce_all(const LoopNest<2>& nest, const T* x, To* y, double scale) {
  const std::int64_t n = nest.row_length();
  const std::int64_t stride = nest.row_stride(0);
  std::array<double, 64> partial;
  const std::int64_t blocks = reduction_blocks(n, kGrain, std::ssize(partial));
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::int64_t begin = n * b / blocks;
      const std::int64_t end = n * (b + 1) / blocks;
      partial[static_cast<std::size_t>(b)] = reduce_run<Op>(x + begin * stride, stride, end - begin);
    }
  });
  double total = Op::start;
  for (std::int64_t b = 0; b < blocks; ++b) total = Op::combine(total, partial[static_cast<std::size_t>(b)]);
  store(y, scale, total);
}

template <class Op, class T, class To>
void reduce_rows(const LoopNest<2>& nest, const T* x, To* y, double scale) {
  const std::int64_t n = nest.row_length();
  parallel_for(nest.rows(), std::max<std::int64_t>(1, kGrain / n), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const Offsets<2> at = row_offsets(nest, row);
      store(y + at[1], scale, reduce_run<Op>(x + at[0], nest.row_stride(0), n));
    }
  });
}

constexpr std::int64_t kTile = 512;  // columns that are reduced together; their accumulators stay in cache

/// total[c] = reduction over rows first..last of columns 0..width (width <= kTile).
template <class Op, class T>
void reduce_tile(const T* x, std::int64_t row_step, std::int64_t first, std::int64_t last, std::int64_t width,
                 double* total) {
  constexpr std::int64_t kRun = 128;  // rows added in float
  std::array<float, kTile> run;
  std::fill_n(total, width, static_cast<double>(Op::start));
  for (std::int64_t begin = first; begin < last; begin += kRun) {
    std::fill_n(run.data(), width, Op::start);
    for (std::int64_t r = begin; r < std::min(last, begin + kRun); ++r) {
      const T* row = x + r * row_step;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c)
        run[static_cast<std::size_t>(c)] = Op::combine(run[static_cast<std::size_t>(c)], static_cast<float>(row[c]));
    }
    for (std::int64_t c = 0; c < width; ++c) {
      total[c] = Op::combine(total[c], static_cast<double>(run[static_cast<std::size_t>(c)]));
    }
  }
}

/// Groups x rows x columns, the middle dimension reduced. `nest` has 2 or 3 dimensions.
template <class Op, class T, class To>
void reduce_columns(const LoopNest<2>& nest, const T* x, To* y, double scale) {
  const std::size_t inner = nest.count - 1;
  const std::int64_t groups = nest.count == 3 ? nest.size[0] : 1;
  const std::int64_t rows = nest.size[inner - 1];
  const std::int64_t columns = nest.size[inner];
  const std::int64_t tiles = (columns + kTile - 1) / kTile;
  const std::int64_t most = std::max<std::int64_t>(1, 64 / (groups * tiles));
  const std::int64_t blocks = reduction_blocks(rows * std::min(columns, kTile), 2 * kGrain, most);

  const Workspace memory(static_cast<std::size_t>(groups * blocks * columns) * sizeof(double));
  auto* partial = memory.as<double>();  // [group][block][column]
  parallel_for(groups * tiles * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t block = task % blocks;
      const std::int64_t tile = task / blocks % tiles;
      const std::int64_t group = task / blocks / tiles;
      const std::int64_t column = tile * kTile;
      const T* source = x + (nest.count == 3 ? group * nest.stride[0][0] : 0) + column;
      reduce_tile<Op>(source, nest.stride[0][inner - 1], rows * block / blocks, rows * (block + 1) / blocks,
                      std::min(kTile, columns - column), partial + (group * blocks + block) * columns + column);
    }
  });
  for (std::int64_t group = 0; group < groups; ++group) {
    double* first = partial + group * blocks * columns;
    for (std::int64_t block = 1; block < blocks; ++block) {
      for (std::int64_t c = 0; c < columns; ++c) first[c] = Op::combine(first[c], first[block * columns + c]);
    }
    To* out = y + (nest.count == 3 ? group * nest.stride[1][0] : 0);
    for (std::int64_t c = 0; c < columns; ++c) store(out + c * nest.stride[1][inner], scale, first[c]);
  }
}

template <class Op, class T, class To>
void reduce_any(const TensorView& x, const TensorView& y, double scale) {
  const ReduceLoop loop(y);
  parallel_for(loop.results(), std::max<std::int64_t>(1, kGrain / loop.terms()),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const T* p = x.ptr<T>() + loop.result(x, i);
                   double total = Op::start;
                   for (std::int64_t k = 0; k < loop.terms(); ++k) {
                     total = Op::combine(total, static_cast<double>(static_cast<float>(p[loop.term(x, k)])));
                   }
                   store(y.ptr<To>() + loop.result(y, i), scale, total);
                 }
               });
}

template <class Op, class T, class To>
void reduce(const TensorView& x, const TensorView& y, double scale) {
  const LoopNest<2> nest = make_nest<2>({&x, &y});
  const auto reduced = [&](std::size_t d) { return nest.stride[1][d] == 0; };
  const std::size_t inner = nest.count - 1;
  bool outer_kept = true;  // all dimensions but the last
  for (std::size_t d = 0; d < inner; ++d) outer_kept = outer_kept && !reduced(d);

  const auto* xp = x.ptr<T>();
  auto* yp = y.ptr<To>();
  if (nest.count == 1 && reduced(0)) return reduce_all<Op>(nest, xp, yp, scale);
  if (reduced(inner) && outer_kept) return reduce_rows<Op>(nest, xp, yp, scale);
  const bool columns = (nest.count == 2 && reduced(0)) || (nest.count == 3 && !reduced(0) && reduced(1));
  if (columns && !reduced(inner) && nest.row_stride(0) == 1) return reduce_columns<Op>(nest, xp, yp, scale);
  reduce_any<Op, T, To>(x, y, scale);
}

/// Position of the largest of `n` consecutive elements.
template <class T>
std::int64_t largest_index(const T* row, std::int64_t stride, std::int64_t n) {
  std::int64_t best = 0;
  float best_value = static_cast<float>(row[0]);
  for (std::int64_t k = 1; k < n; ++k) {
    const auto v = static_cast<float>(row[k * stride]);
    if (v > best_value || (v != v && best_value == best_value)) {
      best = k;
      best_value = v;
    }
  }
  return best;
}

/// argmax over the channels of channels-last pixels: 32 pixels side by side (ops/pixel_tile.h), so that the search
/// runs along pixels and not along a short row of classes.
template <class T>
void largest_channels(const T* x, std::int64_t c, std::int64_t pixels, std::int64_t* y, float* tile) {
  for (std::int64_t p = 0; p < pixels; p += kTilePixels) {
    const std::int64_t count = std::min(kTilePixels, pixels - p);
    load_tile(x + p * c, c, count, tile);
    std::array<float, kTilePixels> best;
    std::array<std::int32_t, kTilePixels> index{};
    std::copy_n(tile, kTilePixels, best.data());
    for (std::int64_t ch = 1; ch < c; ++ch) {
      const float* row = tile + ch * kTilePixels;
      const auto number = static_cast<std::int32_t>(ch);
#pragma omp simd
      for (std::size_t k = 0; k < kTilePixels; ++k) {
        const bool larger = (row[k] > best[k]) | ((row[k] != row[k]) & (best[k] == best[k]));
        best[k] = larger ? row[k] : best[k];
        index[k] = larger ? number : index[k];
      }
    }
    std::copy_n(index.data(), count, y + p);
  }
}

TensorView without_dim(const TensorView& v, std::size_t dim) {
  TensorView out{v.data, v.dtype, {}, {}};
  for (std::size_t d = 0; d < v.shape.size(); ++d) {
    if (d == dim) continue;
    out.shape.push_back(v.shape[d]);
    out.strides.push_back(v.strides[d]);
  }
  return out;
}

}  // namespace

void sum_cpu(const TensorView& x, const TensorView& y, double scale) {
  visit_fast_dtype("sum", x.dtype, [&](auto from) {
    visit_fast_dtype("sum", y.dtype, [&](auto to) { reduce<SumOp, decltype(from), decltype(to)>(x, y, scale); });
  });
}

void amax_cpu(const TensorView& x, const TensorView& y) {
  visit_fast_dtype("amax", x.dtype, [&](auto tag) { reduce<MaxOp, decltype(tag), decltype(tag)>(x, y, 1.0); });
}

void amax_backward_cpu(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx) {
  visit_fast_dtype("amax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ReduceLoop loop(y);
    const std::int64_t grain = std::max<std::int64_t>(1, kGrain / loop.terms());
    parallel_for(loop.results(), grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto largest = static_cast<float>(y.ptr<T>()[loop.result(y, i)]);
        const T* row = x.ptr<T>() + loop.result(x, i);
        T* out = gx.ptr<T>() + loop.result(gx, i);
        float ties = 0;
        for (std::int64_t k = 0; k < loop.terms(); ++k) {
          ties += static_cast<float>(row[loop.term(x, k)]) == largest ? 1.0F : 0.0F;
        }
        const float share = static_cast<float>(gy.ptr<T>()[loop.result(gy, i)]) / ties;
        for (std::int64_t k = 0; k < loop.terms(); ++k) {
          const bool hit = static_cast<float>(row[loop.term(x, k)]) == largest;
          out[loop.term(gx, k)] = static_cast<T>(hit ? share : 0.0F);
        }
      }
    });
  });
}

void argmax_cpu(const TensorView& x, const TensorView& y, std::size_t dim) {
  visit_fast_dtype("argmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const TensorView results = without_dim(y, dim);
    const TensorView rows = without_dim(x, dim);
    const LoopNest<2> nest = make_nest<2>({&results, &rows});
    const std::int64_t c = x.shape[dim];
    if (nest.count == 1 && nest.row_stride(0) == 1 && x.strides[dim] == 1 && nest.row_stride(1) == c && c <= 256) {
      parallel_for(nest.row_length(), 1024, [&](std::int64_t begin, std::int64_t end) {
        const Workspace tile(static_cast<std::size_t>(c * kTilePixels) * sizeof(float));
        largest_channels(x.ptr<T>() + begin * c, c, end - begin, y.ptr<std::int64_t>() + begin, tile.as<float>());
      });
      return;
    }
    for_each_row(nest, [&](const Offsets<2>& at, std::int64_t length) {
      for (std::int64_t i = 0; i < length; ++i) {
        y.ptr<std::int64_t>()[at[0] + i * nest.row_stride(0)] =
            largest_index(x.ptr<T>() + at[1] + i * nest.row_stride(1), x.strides[dim], x.shape[dim]);
      }
    });
  });
}

}  // namespace limbeck::ops
