// Reductions on the GPU. The result has stride 0 along reduced dimensions; what remains are loops over results and loops
// over terms. Two mappings: where neighbouring results are neighbours in memory, a thread per result reads along with
// its neighbours; otherwise a warp reads the terms of one result together. Long sums are cut into splits whose number
// depends on the shape alone, and a second kernel adds the splits in a fixed order.
#include <algorithm>

#include "core/cuda/kernel.cuh"
#include "ops/reduce_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

/// The views that a plan knows the strides of.
enum Role { kX, kY, kGy, kGx, kRoles };

/// Loops over the results or over the terms.
struct Loops {
  int count = 0;
  unsigned size[kMaxDims] = {};
  std::int64_t stride[kRoles][kMaxDims] = {};
  unsigned total = 1;
};

struct Plan {
  Loops results, terms;
};

/// Dimensions of both kinds by rising stride of x, merged where all views run on without a gap.
Plan make_plan(const std::array<const TensorView*, kRoles>& views) {
  const TensorView& x = *views[kX];
  const TensorView& y = *views[kY];
  LIMBECK_CHECK(x.numel() < (std::int64_t{1} << 31), "reduce", "{} elements, at most 2^31 are supported", x.numel());
  std::array<std::size_t, kMaxDims> order{};
  std::size_t dims = 0;
  for (std::size_t d = 0; d < x.shape.size(); ++d) {
    if (x.shape[d] != 1) order[dims++] = d;
  }
  sort_by_stride(std::span(order.data(), dims), x.strides);
  Plan plan;
  for (std::size_t i = dims; i-- > 0;) {
    const std::size_t d = order[i];
    Loops& loops = y.strides[d] == 0 ? plan.terms : plan.results;
    const int last = loops.count - 1;
    bool merge = last >= 0;
    for (std::size_t r = 0; r < kRoles && merge; ++r) {
      merge = views[r]->strides[d] == loops.stride[r][last] * static_cast<std::int64_t>(loops.size[last]);
    }
    const auto size = static_cast<unsigned>(x.shape[d]);
    loops.total *= size;
    if (merge) {
      loops.size[last] *= size;
      continue;
    }
    loops.size[loops.count] = size;
    for (std::size_t r = 0; r < kRoles; ++r) loops.stride[r][loops.count] = views[r]->strides[d];
    ++loops.count;
  }
  return plan;
}

/// Where item `i` of the loops lies in one of the views.
__device__ inline std::int64_t offset(const Loops& loops, Role role, unsigned i) {
  std::int64_t at = 0;
  for (int l = 0; l < loops.count; ++l) {
    const bool last = l + 1 == loops.count;
    at += static_cast<std::int64_t>(last ? i : i % loops.size[l]) * loops.stride[role][l];
    if (!last) i /= loops.size[l];
  }
  return at;
}

struct Sum {
  using Wide = double;
  static constexpr float neutral = 0.0F;
  __device__ float term(float x, float) const { return x; }
  template <class T>
  __device__ T join(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  using Wide = float;
  static constexpr float neutral = -INFINITY;
  __device__ float term(float x, float) const { return x; }
  template <class T>
  __device__ T join(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
/// Elements that equal the result y.
struct Ties {
  using Wide = float;
  static constexpr float neutral = 0.0F;
  __device__ float term(float x, float y) const { return x == y ? 1.0F : 0.0F; }
  template <class T>
  __device__ T join(T a, T b) const {
    return a + b;
  }
};

/// partial[split][result]. `group` threads (1 or 32) share one result and split.
template <class Op, class T, class Y>
__global__ void reduce_kernel(Op op, Plan plan, unsigned group, unsigned splits, const T* x, const Y* y,
                              typename Op::Wide* partial) {
  const unsigned lane = threadIdx.x % group;
  const unsigned long long work = static_cast<unsigned long long>(plan.results.total) * splits;
  const unsigned long long item = (static_cast<unsigned long long>(blockIdx.x) * kBlock + threadIdx.x) / group;
  // Lanes of a warp keep together: a group without work still takes part in the shuffles.
  const bool active = item < work;
  const auto result = static_cast<unsigned>(active ? item % plan.results.total : 0);
  const auto split = static_cast<unsigned>(active ? item / plan.results.total : 0);
  const unsigned share = (plan.terms.total + splits - 1) / splits;
  const unsigned begin = split * share;
  const unsigned end = begin + share < plan.terms.total ? begin + share : plan.terms.total;
  const T* row = x + offset(plan.results, kX, result);
  const float reference = y == nullptr ? 0.0F : to_float(y[offset(plan.results, kY, result)]);
  typename Op::Wide total = Op::neutral;
  for (unsigned first_term = begin + lane; active && first_term < end; first_term += 64 * group) {
    float run = Op::neutral;  // float in runs of 64, wide across them
    for (unsigned k = first_term; k < end && k < first_term + 64 * group; k += group) {
      run = op.join(run, op.term(to_float(row[offset(plan.terms, kX, k)]), reference));
    }
    total = op.join(total, static_cast<typename Op::Wide>(run));
  }
  for (unsigned distance = group / 2; distance > 0; distance /= 2) {
    total = op.join(total, __shfl_xor_sync(kFull, total, static_cast<int>(distance)));
  }
  if (active && lane == 0) partial[static_cast<std::size_t>(split) * plan.results.total + result] = total;
}

/// y[result] = scale * the splits of it, a warp each.
template <class Op, class Y>
__global__ void finish_kernel(Op op, Plan plan, unsigned splits, double scale, const typename Op::Wide* partial, Y* y) {
  const unsigned result = (blockIdx.x * kBlock + threadIdx.x) / kWarp;
  typename Op::Wide total = Op::neutral;
  if (result < plan.results.total) {
    for (unsigned s = threadIdx.x % kWarp; s < splits; s += kWarp) {
      total = op.join(total, partial[static_cast<std::size_t>(s) * plan.results.total + result]);
    }
  }
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    total = op.join(total, __shfl_xor_sync(kFull, total, static_cast<int>(distance)));
  }
  if (result < plan.results.total && threadIdx.x % kWarp == 0) {
    const auto scaled = scale == 1.0 ? total : static_cast<typename Op::Wide>(scale * total);
    y[offset(plan.results, kY, result)] = from_float<Y>(static_cast<float>(scaled));
  }
}

/// Runs both stages; `reference` (of the result's shape) may be null.
template <class Op, class T, class Y, class R>
void reduce(const Plan& plan, const T* x, const R* reference, double scale, Y* y) {
  const bool neighbours = plan.results.count > 0 && plan.results.stride[kX][0] == 1;
  const unsigned group = neighbours && plan.results.total >= kWarp ? 1 : kWarp;
  // A split handles at least 64 terms per thread; together they make at most about 2^18 threads.
  const std::int64_t useful = plan.terms.total / (64 * group);
  const std::int64_t most =
      std::max<std::int64_t>((1 << 18) / (static_cast<std::int64_t>(plan.results.total) * group), 1);
  const auto splits = static_cast<unsigned>(std::clamp<std::int64_t>(useful, 1, most));
  const std::int64_t items = static_cast<std::int64_t>(plan.results.total) * splits;
  const Scratch partial(static_cast<std::size_t>(items) * sizeof(typename Op::Wide));
  auto* p = partial.as<typename Op::Wide>();
  launch(reduce_kernel<Op, T, R>, ceil_div(items * group, kBlock), kBlock, Op{}, plan, group, splits, x, reference, p);
  launch(finish_kernel<Op, Y>, ceil_div(std::int64_t{plan.results.total} * kWarp, kBlock), kBlock, Op{}, plan, splits,
         scale, p, y);
}

template <class T>
__global__ void amax_backward_kernel(Plan plan, const T* x, const T* y, const T* gy, const float* ties, T* gx) {
  const unsigned long long count = static_cast<unsigned long long>(plan.results.total) * plan.terms.total;
  for (unsigned long long i = first(); i < count; i += step()) {
    // Terms run fastest where they are consecutive in memory, else results do.
    const bool terms_inside = plan.terms.count > 0 && plan.terms.stride[kX][0] == 1;
    const auto result = static_cast<unsigned>(terms_inside ? i / plan.terms.total : i % plan.results.total);
    const auto term = static_cast<unsigned>(terms_inside ? i % plan.terms.total : i / plan.results.total);
    const float largest = to_float(y[offset(plan.results, kY, result)]);
    const float value = to_float(x[offset(plan.results, kX, result) + offset(plan.terms, kX, term)]);
    const float share = to_float(gy[offset(plan.results, kGy, result)]) / ties[result];
    gx[offset(plan.results, kGx, result) + offset(plan.terms, kGx, term)] =
        from_float<T>(value == largest ? share : 0.0F);
  }
}

template <class T>
__global__ void argmax_kernel(Plan plan, const T* x, std::int64_t* y) {
  const unsigned result = blockIdx.x * kBlock + threadIdx.x;
  if (result >= plan.results.total) return;
  const T* row = x + offset(plan.results, kX, result);
  std::int64_t best = 0;
  float largest = to_float(*row);
  for (unsigned k = 1; k < plan.terms.total; ++k) {
    const float v = to_float(row[offset(plan.terms, kX, k)]);
    if (v > largest || (v != v && largest == largest)) {
      largest = v;
      best = k;
    }
  }
  y[offset(plan.results, kY, result)] = best;
}

}  // namespace

void sum_cuda(const TensorView& x, const TensorView& y, double scale) {
  const Plan plan = make_plan({&x, &y, &y, &x});
  visit_fast_dtype("sum", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (y.dtype == DType::kF32) {
      reduce<Sum, T, float, T>(plan, x.ptr<const T>(), nullptr, scale, y.ptr<float>());
    } else {
      reduce<Sum, T, T, T>(plan, x.ptr<const T>(), nullptr, scale, y.ptr<T>());
    }
  });
}

void amax_cuda(const TensorView& x, const TensorView& y) {
  visit_fast_dtype("amax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    reduce<Largest, T, T, T>(make_plan({&x, &y, &y, &x}), x.ptr<const T>(), nullptr, 1.0, y.ptr<T>());
  });
}

void amax_backward_cuda(const TensorView& x, const TensorView& y, const TensorView& gy, const TensorView& gx) {
  // The plan orders its loops by x, so results and terms have the same numbers in every view that it describes.
  const Plan plan = make_plan({&x, &y, &gy, &gx});
  Plan by_number = plan;  // the ties are stored by the number of their result
  std::int64_t at = 1;
  for (int l = 0; l < plan.results.count; ++l) {
    by_number.results.stride[kY][l] = at;
    at *= plan.results.size[l];
  }
  const auto results = static_cast<std::size_t>(plan.results.total);
  const Scratch partial(results * sizeof(float));
  const Scratch ties(results * sizeof(float));
  visit_fast_dtype("amax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(reduce_kernel<Ties, T, T>, ceil_div(plan.results.total * std::int64_t{kWarp}, kBlock), kBlock, Ties{}, plan,
           kWarp, 1U, x.ptr<const T>(), y.ptr<const T>(), partial.as<float>());
    launch(finish_kernel<Ties, float>, ceil_div(plan.results.total * std::int64_t{kWarp}, kBlock), kBlock, Ties{},
           by_number, 1U, 1.0, partial.as<const float>(), ties.as<float>());
    launch(amax_backward_kernel<T>, grid_for(x.numel()), kBlock, plan, x.ptr<const T>(), y.ptr<const T>(),
           gy.ptr<const T>(), ties.as<const float>(), gx.ptr<T>());
  });
}

void argmax_cuda(const TensorView& x, const TensorView& y, std::size_t) {
  const Plan plan = make_plan({&x, &y, &y, &x});
  visit_fast_dtype("argmax", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(argmax_kernel<T>, ceil_div(plan.results.total, kBlock), kBlock, plan, x.ptr<const T>(),
           y.ptr<std::int64_t>());
  });
}

}  // namespace limbeck::ops
