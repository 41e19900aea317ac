// The optimizers' kernels: every block takes 4096 elements of one tensor of a batch of up to 48, whose pointers travel in the
// launch itself. Element by element the same formulas as nn/sgd.cpp and nn/adamw.cpp.
#include <algorithm>

#include "core/cuda/kernel.cuh"
#include "nn/device_update.h"

namespace limbeck::nn {
namespace {

using namespace cuda;

constexpr unsigned kShare = 4096;  // elements of a block
constexpr int kMost = 48;          // 48 * 5 * 8 bytes: within the 4 KiB of a launch's arguments

struct Batch {
  float* param[kMost];
  const float* grad[kMost];
  float* first[kMost];
  float* second[kMost];
  unsigned count[kMost];
  unsigned end_block[kMost];  // blocks of this and all earlier tensors
  int tensors = 0;
};

struct Sgd {
  SgdRule rule;
  __device__ void take(const float* step) { rule.lr = step[0]; }
  __device__ void operator()(float& w, float g, float* v, float*, unsigned i) const {
    const float d = g + rule.weight_decay * w;
    if (v == nullptr) {
      w -= rule.lr * d;
      return;
    }
    const float m = rule.momentum * v[i] + d;
    v[i] = m;
    w -= rule.lr * (rule.nesterov ? d + rule.momentum * m : m);
  }
};

struct AdamW {
  AdamWRule rule;
  __device__ void take(const float* step) {
    rule.keep = step[0];
    rule.step = step[1];
    rule.root = step[2];
  }
  __device__ void operator()(float& w, float g, float* m, float* v, unsigned i) const {
    m[i] = rule.beta1 * m[i] + rule.one_minus_beta1 * g;
    v[i] = rule.beta2 * v[i] + rule.one_minus_beta2 * g * g;
    w = rule.keep * w - rule.step * m[i] / (sqrtf(v[i]) / rule.root + rule.eps);
  }
};

struct Average {
  AverageRule rule;
  __device__ void take(const float* step) {
    rule.keep = step[0];
    rule.take = step[1];
  }
  __device__ void operator()(float& a, float w, float*, float*, unsigned) const { a = rule.keep * a + rule.take * w; }
};

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
  for (unsigned i = begin + threadIdx.x; i < end; i += kBlock) {
    float value = w[i];
    rule(value, g[i], batch.first[t], batch.second[t], i);
    w[i] = value;
  }
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
