// The optimizers' kernels: every block takes 4096 elements of one tensor of a batch of up to 48, whose pointers travel in the
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

__device__ inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

/// `recorded`: the numbers of the step, where a replay finds them; null: the rule has them.
template <class Rule>
__global__ void update_kernel(Rule rule, const float* recorded, Batch batch) {
  if (recorded != nullptr) rule.take(recorded);
  int t = 0;
  while (blockIdx.x >= batch.end_block[t]) ++t;
  const unsigned begin = (blockIdx.x - (t == 0 ? 0 : batch.end_block[t - 1])) * kShare;
  const unsigned end = begin + kShare < batch.count[t] ? begin + kShare : batch.count[t];
  float* w = batch.param[t];
  const float* g = batch.grad[t];
  float* a = batch.first[t];
  float* b = batch.second[t];
  bfloat16* r = batch.rounded[t];
  unsigned rest = begin;
  if (aligned(w) && aligned(g) && aligned(a) && aligned(b) && aligned(r)) {
    rest = end / 4 * 4;  // `begin` is a multiple of 4
    for (unsigned i = begin + 4 * threadIdx.x; i < rest; i += 4 * kBlock) update<4>(rule, w, g, a, b, r, i);
  }
  for (unsigned i = rest + threadIdx.x; i < end; i += kBlock) update<1>(rule, w, g, a, b, r, i);
}

template <class Rule>
void run(const DeviceUpdates& u, const Rule& rule, const float* recorded) {
  for (std::size_t begin = 0; begin < u.param.size(); begin += kMost) {
    Batch batch{};
    unsigned blocks = 0;
    for (std::size_t i = begin; i < std::min(u.param.size(), begin + kMost); ++i) {
      const int t = batch.tensors++;
      LIMBECK_CHECK(u.count[i] < (std::int64_t{1} << 32), "optimizer", "a parameter of {} elements", u.count[i]);
      batch.param[t] = u.param[i];
      batch.grad[t] = u.grad[i];
      batch.first[t] = u.first.empty() ? nullptr : u.first[i];
      batch.second[t] = u.second.empty() ? nullptr : u.second[i];
      batch.rounded[t] = u.rounded.empty() ? nullptr : u.rounded[i];
      batch.count[t] = static_cast<unsigned>(u.count[i]);
      blocks += ceil_div(u.count[i], kShare);
      batch.end_block[t] = blocks;
    }
    if (blocks > 0) launch(update_kernel<Rule>, blocks, kBlock, rule, recorded, batch);
  }
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

}  // namespace limbeck::nn
