// The kernels of the optimizers and of clipping: every block takes 4096 elements of one tensor of a batch of up to 48, whose pointers travel in the
// launch itself. Element by element the same formulas as nn/sgd.cpp and nn/adamw.cpp.
#include <algorithm>

#include "core/cuda/kernel.cuh"
#include "nn/device_update.h"

namespace limbeck::nn {
namespace {

using namespace cuda;

constexpr unsigned kShare = 4096;  // elements of a block
constexpr int kMost = 48;          // 48 * 6 * 8 bytes: within the 4 KiB of a launch's arguments

struct Batch {
  float* param[kMost];
  const float* grad[kMost];
  float* first[kMost];
  float* second[kMost];
  bfloat16* rounded[kMost];
  unsigned count[kMost];
  unsigned end_block[kMost];  // blocks of this and all earlier tensors
  int tensors = 0;
};

struct Sgd {
  SgdRule rule;
  __device__ void take(const float* step) { rule.lr = step[0]; }
  __device__ void operator()(float& w, float g, float& v, float&) const {
    const float d = g + rule.weight_decay * w;
    v = rule.momentum * v + d;  // without momentum v is d, and forgotten
    w -= rule.lr * (rule.nesterov ? d + rule.momentum * v : v);
  }
};

struct AdamW {
  AdamWRule rule;
  __device__ void take(const float* step) {
    rule.keep = step[0];
    rule.step = step[1];
    rule.root = step[2];
  }
  __device__ void operator()(float& w, float g, float& m, float& v) const {
    m = rule.beta1 * m + rule.one_minus_beta1 * g;
    v = rule.beta2 * v + rule.one_minus_beta2 * g * g;
    w = rule.keep * w - rule.step * m / (sqrtf(v) / rule.root + rule.eps);
  }
};

struct Average {
  AverageRule rule;
  __device__ void take(const float* step) {
    rule.keep = step[0];
    rule.take = step[1];
  }
  __device__ void operator()(float& a, float w, float&, float&) const { a = rule.keep * a + rule.take * w; }
};

/// V elements from i on. What a rule does not have is null and counts as zeros.
template <int V, class Rule>
__device__ inline void update(const Rule& rule, float* w, const float* g, float* first, float* second,
                              bfloat16* rounded, unsigned i) {
  float value[V];
  float slope[V];
  float a[V] = {};
  float b[V] = {};
  load<V>(w + i, value);
  load<V>(g + i, slope);
  if (first != nullptr) load<V>(first + i, a);
  if (second != nullptr) load<V>(second + i, b);
  for (int j = 0; j < V; ++j) rule(value[j], slope[j], a[j], b[j]);
  store<V>(w + i, value);
  if (first != nullptr) store<V>(first + i, a);
  if (second != nullptr) store<V>(second + i, b);
  if (rounded != nullptr) store<V>(rounded + i, value);
}

/// What a block takes.
struct Share {
  int tensor = 0;
  unsigned begin, end;  // `begin` is a multiple of 4
  __device__ explicit Share(const Batch& batch) {
    while (blockIdx.x >= batch.end_block[tensor]) ++tensor;
    begin = (blockIdx.x - (tensor == 0 ? 0 : batch.end_block[tensor - 1])) * kShare;
    end = begin + kShare < batch.count[tensor] ? begin + kShare : batch.count[tensor];
  }
};

/// `recorded`: the numbers of the step, where a replay finds them; null: the rule has them.
template <class Rule>
__global__ void update_kernel(Rule rule, const float* recorded, Batch batch) {
  if (recorded != nullptr) rule.take(recorded);
  const Share share(batch);
  float* w = batch.param[share.tensor];
  const float* g = batch.grad[share.tensor];
  float* a = batch.first[share.tensor];
  float* b = batch.second[share.tensor];
  bfloat16* r = batch.rounded[share.tensor];
  unsigned rest = share.begin;
  if (aligned(w) && aligned(g) && aligned(a) && aligned(b) && aligned(r)) {
    rest = share.end / 4 * 4;
    for (unsigned i = share.begin + 4 * threadIdx.x; i < rest; i += 4 * kBlock) update<4>(rule, w, g, a, b, r, i);
  }
  for (unsigned i = rest + threadIdx.x; i < share.end; i += kBlock) update<1>(rule, w, g, a, b, r, i);
}

/// partial[first + block] = the sum of the squares of the block's elements.
__global__ void squares_kernel(Batch batch, double* partial) {
  __shared__ double scratch[32];
  const Share share(batch);
  const float* values = batch.param[share.tensor];
  float sum = 0;
  unsigned rest = share.begin;
  if (aligned(values)) {
    rest = share.end / 4 * 4;
#pragma unroll
    for (unsigned k = 0; k < kShare / (4 * kBlock); ++k) {
      const unsigned i = share.begin + 4 * (k * kBlock + threadIdx.x);
      if (i >= rest) break;
      float v[4];
      load<4>(values + i, v);
      for (int j = 0; j < 4; ++j) sum += v[j] * v[j];
    }
  }
  for (unsigned i = rest + threadIdx.x; i < share.end; i += kBlock) sum += values[i] * values[i];
  const double total = block_all(static_cast<double>(sum), Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void norm_kernel(const double* partial, unsigned count, float* norm) {
  __shared__ double scratch[32];
  const double sum = sum_all(partial, count, scratch);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

/// A factor of 1 changes nothing, and reads nothing.
__global__ void clip_kernel(Batch batch, const float* norm, double most) {
  const double ratio = most / (static_cast<double>(*norm) + 1e-6);
  if (ratio >= 1) return;  // NaN goes on
  const auto factor = static_cast<float>(ratio);
  const Share share(batch);
  float* values = batch.param[share.tensor];
  unsigned rest = share.begin;
  if (aligned(values)) {
    rest = share.end / 4 * 4;
    for (unsigned i = share.begin + 4 * threadIdx.x; i < rest; i += 4 * kBlock) {
      float v[4];
      load<4>(values + i, v);
      for (int j = 0; j < 4; ++j) v[j] *= factor;
      store<4>(values + i, v);
    }
  }
  for (unsigned i = rest + threadIdx.x; i < share.end; i += kBlock) values[i] *= factor;
}

/// Calls f(batch, blocks) for every launch.
template <class F>
void for_each_batch(const DeviceUpdates& u, const F& f) {
  for (std::size_t begin = 0; begin < u.param.size(); begin += kMost) {
    Batch batch{};
    unsigned blocks = 0;
    for (std::size_t i = begin; i < std::min(u.param.size(), begin + kMost); ++i) {
      const int t = batch.tensors++;
      LIMBECK_CHECK(u.count[i] < (std::int64_t{1} << 32), "optimizer", "a parameter of {} elements", u.count[i]);
      batch.param[t] = u.param[i];
      batch.grad[t] = u.grad.empty() ? nullptr : u.grad[i];
      batch.first[t] = u.first.empty() ? nullptr : u.first[i];
      batch.second[t] = u.second.empty() ? nullptr : u.second[i];
      batch.rounded[t] = u.rounded.empty() ? nullptr : u.rounded[i];
      batch.count[t] = static_cast<unsigned>(u.count[i]);
      blocks += ceil_div(u.count[i], kShare);
      batch.end_block[t] = blocks;
    }
    if (blocks > 0) f(batch, blocks);
  }
}

template <class Rule>
void run(const DeviceUpdates& u, const Rule& rule, const float* recorded) {
  for_each_batch(u, [&](const Batch& batch, unsigned blocks) {
    launch(update_kernel<Rule>, blocks, kBlock, rule, recorded, batch);
  });
}

}  // namespace

void sgd_update_cuda(const DeviceUpdates& updates, const SgdRule& rule, const float* recorded) {
  run(updates, Sgd{rule}, recorded);
}
void adamw_update_cuda(const DeviceUpdates& updates, const AdamWRule& rule, const float* recorded) {
  run(updates, AdamW{rule}, recorded);
}
void average_cuda(const DeviceUpdates& updates, const AverageRule& rule, const float* recorded) {
  run(updates, Average{rule}, recorded);
}

void norm_cuda(const DeviceUpdates& updates, float* norm) {
  unsigned count = 0;
  for (const std::int64_t n : updates.count) count += ceil_div(n, kShare);
  const Scratch partial(std::max(count, 1U) * sizeof(double));
  unsigned done = 0;
  for_each_batch(updates, [&](const Batch& batch, unsigned blocks) {
    launch(squares_kernel, blocks, kBlock, batch, partial.as<double>() + done);
    done += blocks;
  });
  launch(norm_kernel, 1, kBlock, partial.as<double>(), count, norm);
}

void clip_cuda(const DeviceUpdates& updates, const float* norm, double most) {
  for_each_batch(updates,
                 [&](const Batch& batch, unsigned blocks) { launch(clip_kernel, blocks, kBlock, batch, norm, most); });
}

}  // namespace limbeck::nn
