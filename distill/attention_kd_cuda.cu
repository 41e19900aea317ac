// The attention losses on the GPU: one pass over each map for the energies, the formulas on N*M numbers in double with one block per
// normalised group, one pass for the gradient. The formulas are those of attention_kd_ref.cpp.
#include "core/cuda/columns.cuh"
#include "core/cuda/vectors.cuh"
#include "distill/attention_kd_kernels.h"
#include "ops/map_view.h"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::PixelLane;

template <int V, class T>
__global__ void energy_kernel(const T* x, unsigned pixels, unsigned channels, unsigned lanes, double share, double* q) {
  const PixelLane at(pixels, lanes);
  const float sum = ops::row_sum<V>(x + static_cast<std::size_t>(at.pixel) * channels, channels, at.lane, lanes,
                                    [](float v, unsigned) { return v * v; });
  if (at.active && at.lane == 0) q[at.pixel] = static_cast<double>(sum) * share;
}

template <int V, class T>
__global__ void energy_backward_kernel(const T* x, const double* gq, double share, unsigned channels, unsigned vectors,
                                       T* gx) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    const auto factor = static_cast<float>(2 * gq[i / (channels / V)] * share);
    float v[V];
    load<V>(x + at, v);
    for (int j = 0; j < V; ++j) v[j] *= factor;
    store<V>(gx + at, v);
  }
}

/// PositionGroups for kernels: element j of the block's group is at start + j step.
struct Groups {
  unsigned length, step, width;
  bool columns;
  explicit Groups(const PositionGroups& g)
      : length(static_cast<unsigned>(g.length)),
        step(static_cast<unsigned>(g.step)),
        width(static_cast<unsigned>(g.width)),
        columns(g.columns) {}
  __device__ std::size_t at(unsigned j) const {
    const std::size_t g = blockIdx.x;
    return (columns ? g / width * (std::size_t{length} * width) + g % width : g * length) + std::size_t{j} * step;
  }
};

/// Sum of f(place) over the block's group; every thread gets it.
template <class F>
__device__ inline double group_sum(const Groups& groups, double* scratch, const F& f) {
  double sum = 0;
  for (unsigned j = threadIdx.x; j < groups.length; j += kBlock) sum += f(groups.at(j));
  return block_all(sum, Add{}, 0.0, scratch);
}

__device__ inline double raised(double norm) { return norm < kAttentionLeastNorm ? kAttentionLeastNorm : norm; }

/// Length of the block's group of x.
__device__ inline double group_norm(const Groups& groups, double* scratch, const double* x) {
  return sqrt(group_sum(groups, scratch, [=](std::size_t i) { return x[i] * x[i]; }));
}

/// parts[group] = its share of attention_kd; gq may be null.
__global__ void attention_kernel(Groups groups, const double* q_s, const double* q_t, bool by_norm, double samples,
                                 double positions, double* parts, double* gq) {
  __shared__ double scratch[32];
  const double norm_s = group_norm(groups, scratch, q_s);
  const double length_s = raised(norm_s);
  const double length_t = raised(group_norm(groups, scratch, q_t));
  const double squares = group_sum(groups, scratch, [=](std::size_t i) {
    const double d = q_s[i] / length_s - q_t[i] / length_t;
    return d * d;
  });
  const double norm = sqrt(squares);
  if (threadIdx.x == 0) parts[blockIdx.x] = by_norm ? norm / samples : squares / (samples * positions);
  if (gq == nullptr) return;
  const double slope = !by_norm ? 2 / (samples * positions) : norm > 0 ? 1 / (norm * samples) : 0;
  // a.d; a raised norm is a constant.
  const double sum = group_sum(groups, scratch, [=](std::size_t i) {
    return q_s[i] / length_s * (slope * (q_s[i] / length_s - q_t[i] / length_t));
  });
  const double along = norm_s > kAttentionLeastNorm ? sum : 0;
  for (unsigned j = threadIdx.x; j < groups.length; j += kBlock) {
    const std::size_t i = groups.at(j);
    gq[i] = (slope * (q_s[i] / length_s - q_t[i] / length_t) - q_s[i] / length_s * along) / length_s;
  }
}

/// Energies of two layers of one network.
struct Layers {
  const double* k;
  const double* l;
};

/// parts[image] = what a pair of layers adds to psd_kd; ga_k and ga_l (null without gradient) get their gradients added.
__global__ void pair_kernel(Groups groups, Layers s, Layers t, double share, double* parts, double* ga_k,
                            double* ga_l) {
  __shared__ double scratch[32];
  const double s_k = raised(group_norm(groups, scratch, s.k));
  const double s_l = raised(group_norm(groups, scratch, s.l));
  const double t_k = raised(group_norm(groups, scratch, t.k));
  const double t_l = raised(group_norm(groups, scratch, t.l));
  const auto change_s = [=](std::size_t i) { return s.l[i] / s_l - s.k[i] / s_k; };
  const auto change_t = [=](std::size_t i) { return t.l[i] / t_l - t.k[i] / t_k; };
  const double norm = sqrt(group_sum(groups, scratch, [=](std::size_t i) { return change_s(i) * change_s(i); }));
  const double length_s = raised(norm);
  const double length_t =
      raised(sqrt(group_sum(groups, scratch, [=](std::size_t i) { return change_t(i) * change_t(i); })));
  const auto difference = [=](std::size_t i) { return change_s(i) / length_s - change_t(i) / length_t; };
  const double squares = group_sum(groups, scratch, [=](std::size_t i) { return difference(i) * difference(i); });
  if (threadIdx.x == 0) parts[blockIdx.x] = share * squares;
  if (ga_k == nullptr) return;
  const double sum =
      group_sum(groups, scratch, [=](std::size_t i) { return change_s(i) / length_s * (2 * share * difference(i)); });
  const double along = norm > kAttentionLeastNorm ? sum : 0;
  for (unsigned j = threadIdx.x; j < groups.length; j += kBlock) {
    const std::size_t i = groups.at(j);
    const double g = (2 * share * difference(i) - change_s(i) / length_s * along) / length_s;
    ga_l[i] += g;
    ga_k[i] -= g;
  }
}

/// gq = gradient of the energies, given that of their normalised form; ga and gq may be the same.
__global__ void normalise_backward_kernel(Groups groups, const double* q, const double* ga, double* gq) {
  __shared__ double scratch[32];
  const double norm = group_norm(groups, scratch, q);
  const double length = raised(norm);
  const double sum = group_sum(groups, scratch, [=](std::size_t i) { return q[i] / length * ga[i]; });
  const double along = norm > kAttentionLeastNorm ? sum : 0;
  for (unsigned j = threadIdx.x; j < groups.length; j += kBlock) {
    const std::size_t i = groups.at(j);
    gq[i] = (ga[i] - q[i] / length * along) / length;
  }
}

}  // namespace

void energy_cuda(const TensorView& x, const TensorView& q) {
  const std::int64_t pixels = ops::pixel_count(x);
  LIMBECK_CHECK(pixels < (std::int64_t{1} << 26), "attention_kd", "{} pixels, expected at most 2^26", pixels);
  visit_vectors(
      "attention_kd", x.dtype, x.c(),
      [&](auto tag, auto vector) {
        using T = decltype(tag);
        constexpr int V = decltype(vector)::value;
        const unsigned lanes = ops::lanes_per_pixel(x.c() / V);
        launch(energy_kernel<V, T>, ceil_div(pixels * lanes, kBlock), kBlock, x.ptr<const T>(), pixels, x.c(), lanes,
               1.0 / static_cast<double>(x.c()), q.ptr<double>());
      },
      x.data);
}

void energy_backward_cuda(const TensorView& x, const TensorView& gq, const TensorView& gx) {
  visit_fast_dtype("attention_kd", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    visit_lanes<T>(
        x.c(),
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          const std::int64_t vectors = x.numel() / V;
          launch(energy_backward_kernel<V, T>, grid_for(vectors), kBlock, x.ptr<const T>(), gq.ptr<const double>(),
                 1.0 / static_cast<double>(x.c()), x.c(), vectors, gx.ptr<T>());
        },
        x.ptr<const T>(), gx.ptr<const T>());
  });
}

void attention_loss_cuda(const Shape& map, AttentionForm form, const TensorView& q_s, const TensorView& q_t,
                         const TensorView& loss, const TensorView& gq) {
  const PositionGroups groups(map, form == AttentionForm::kColumns);
  const Scratch parts(static_cast<std::size_t>(groups.count) * sizeof(double));
  launch(attention_kernel, static_cast<unsigned>(groups.count), kBlock, Groups(groups), q_s.ptr<const double>(),
         q_t.ptr<const double>(), form == AttentionForm::kNorm, map[0], map[2] * map[3], parts.as<double>(),
         gq.ptr<double>());
  launch(finish_sum_kernel<float>, 1, kBlock, parts.as<double>(), groups.count, 1.0, loss.ptr<float>());
}

void psd_loss_cuda(const Shape& map, const std::vector<TensorView>& q_s, const std::vector<TensorView>& q_t,
                   const TensorView& loss, const std::vector<TensorView>& gq) {
  const PositionGroups groups(map, false);
  const std::size_t layers = q_s.size();
  const std::size_t pairs = layers * (layers - 1) / 2;
  const std::int64_t size = groups.count * groups.length;
  const double share = 1 / (static_cast<double>(pairs) * static_cast<double>(size));
  const auto images = static_cast<std::size_t>(groups.count);
  const Scratch parts(pairs * images * sizeof(double));
  for (const TensorView& g : gq)
    check(cudaMemsetAsync(g.data, 0, static_cast<std::size_t>(size) * sizeof(double), stream()), "cudaMemsetAsync");
  const auto two = [](const std::vector<TensorView>& q, std::size_t k, std::size_t l) {
    return Layers{q[k].ptr<const double>(), q[l].ptr<const double>()};
  };
  std::size_t pair = 0;
  for (std::size_t k = 0; k < layers; ++k) {
    for (std::size_t l = k + 1; l < layers; ++l, ++pair) {
      launch(pair_kernel, static_cast<unsigned>(images), kBlock, Groups(groups), two(q_s, k, l), two(q_t, k, l), share,
             parts.as<double>() + pair * images, gq.empty() ? nullptr : gq[k].ptr<double>(),
             gq.empty() ? nullptr : gq[l].ptr<double>());
    }
  }
  launch(finish_sum_kernel<float>, 1, kBlock, parts.as<double>(), pairs * images, 1.0, loss.ptr<float>());
  for (std::size_t k = 0; k < gq.size(); ++k) {
    launch(normalise_backward_kernel, static_cast<unsigned>(images), kBlock, Groups(groups), q_s[k].ptr<const double>(),
           gq[k].ptr<const double>(), gq[k].ptr<double>());
  }
}

}  // namespace limbeck::distill
