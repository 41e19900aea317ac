// What this is: softmaxes over the positions of a channels-last map on the GPU, as the losses that compare classes need them: first the
//   largest number and the sum of exponentials of every channel, then probabilities computed where they are used.
#pragma once

#include "core/cuda/columns.cuh"

namespace limbeck::distill {

struct PositionSum {
  float largest;
  double sum;  ///< of exp((x - largest) / tau)
};

template <int V, class T>
struct PositionSums {
  struct Acc {
    float largest[V];
    double sum[V];
  };
  const T* x;
  float inverse_tau;
  unsigned rows, columns;
  PositionSum* out;  // [stack][columns]

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) {
      a.largest[j] = -INFINITY;
      a.sum[j] = 0;
    }
  }
  __device__ void join(float& largest, double& sum, float other, double other_sum) const {
    if (other_sum == 0) return;
    const float top = cuda::Max{}(largest, other);
    const double here = sum == 0 ? 0.0 : sum * static_cast<double>(expf((largest - top) * inverse_tau));
    sum = here + other_sum * static_cast<double>(expf((other - top) * inverse_tau));
    largest = top;
  }
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned v) const {
    float value[V];
    cuda::load<V>(x + (static_cast<std::size_t>(stack) * rows + row) * columns + v * V, value);
    for (int j = 0; j < V; ++j) {  // join() with one number needs one exponential
      if (value[j] == -INFINITY) continue;
      const bool larger = value[j] > a.largest[j];
      const float difference = larger ? a.largest[j] - value[j] : value[j] - a.largest[j];
      const auto factor = static_cast<double>(expf(difference * inverse_tau));
      a.sum[j] = larger ? a.sum[j] * factor + 1 : a.sum[j] + factor;
      if (larger) a.largest[j] = value[j];
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) join(a.largest[j], a.sum[j], b.largest[j], b.sum[j]);
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned v) const {
    for (int j = 0; j < V; ++j)
      out[static_cast<std::size_t>(stack) * columns + v * V + static_cast<unsigned>(j)] = {a.largest[j], a.sum[j]};
  }
};

/// The sums of `stacks` matrices [rows][columns] over their rows. For a softmax over all positions of an image the rows are the
/// positions and the columns the channels; for one over the height alone the columns are (w, channel).
template <class T>
void sum_exponentials(const T* x, double tau, std::int64_t stacks, std::int64_t rows, std::int64_t columns,
                      PositionSum* out) {
  cuda::visit_lanes<T>(
      columns,
      [&](auto lanes) {
        constexpr int V = decltype(lanes)::value;
        cuda::reduce_columns(PositionSums<V, T>{x, static_cast<float>(1 / tau), static_cast<unsigned>(rows),
                                                static_cast<unsigned>(columns), out},
                             stacks, rows, columns / V);
      },
      x);
}

/// (x - largest) / tau, and ln p and p of it, of element (image, position, channel).
template <class T>
struct PositionScores {
  const T* x;
  const PositionSum* sums;
  float inverse_tau;
  unsigned positions, channels;
  unsigned columns;  // of the sums: `channels`, or a multiple where every column of the image has its own softmax

  __device__ const PositionSum& sum(unsigned image, unsigned position, unsigned channel) const {
    return sums[static_cast<std::size_t>(image) * columns + (position * channels + channel) % columns];
  }
  __device__ float z(unsigned image, unsigned position, unsigned channel) const {
    const float v = cuda::to_float(x[(static_cast<std::size_t>(image) * positions + position) * channels + channel]);
    return (v - sum(image, position, channel).largest) * inverse_tau;
  }
  __device__ float ln_p(unsigned image, unsigned position, unsigned channel) const {
    return z(image, position, channel) - static_cast<float>(::log(sum(image, position, channel).sum));
  }
  __device__ float p(unsigned image, unsigned position, unsigned channel) const {
    return expf(z(image, position, channel)) / static_cast<float>(sum(image, position, channel).sum);
  }
};

/// Elements for core/cuda/products.cuh.
template <class T>
struct ScoreElement {
  PositionScores<T> scores;
  __device__ float operator()(unsigned image, unsigned position, unsigned channel) const {
    return scores.z(image, position, channel);
  }
};
template <class T>
struct ExponentialElement {
  PositionScores<T> scores;
  __device__ float operator()(unsigned image, unsigned position, unsigned channel) const {
    return expf(scores.z(image, position, channel));
  }
};
template <class T>
struct ProbabilityElement {
  PositionScores<T> scores;
  __device__ float operator()(unsigned image, unsigned position, unsigned channel) const {
    return scores.p(image, position, channel);
  }
};

}  // namespace limbeck::distill
