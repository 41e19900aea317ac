// Vectorised cross entropy for channels-last logits, f32 and bf16.
//   1. the labels alone: range check and the divisor of the mean (a byte or a few per pixel)
//   2. the logits, once: tiles of 32 pixels, transposed (ops/pixel_tile.h), give the loss and, while they are in cache,
//      the finished gradient
#include <algorithm>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "ops/cross_entropy_kernels.h"
#include "ops/map_view.h"
#include "ops/pixel_tile.h"

namespace limbeck::ops {
namespace {

constexpr std::int64_t kP = kTilePixels;
constexpr std::int64_t kMostBlocks = 64;

template <class F>
void visit_labels(DType t, const F& f) {
  if (t == DType::kU8) return f(std::uint8_t{});
  if (t == DType::kI32) return f(std::int32_t{});
  f(std::int64_t{});
}

[[noreturn]] void fail_first_bad(const TensorView& labels, std::int64_t classes, std::int64_t ignore) {
  for (std::int64_t n = 0; n < labels.shape[0]; ++n) {
    for (std::int64_t h = 0; h < labels.shape[1]; ++h) {
      for (std::int64_t w = 0; w < labels.shape[2]; ++w) {
        const std::int64_t y = label_at(labels, n, h, w);
        if (y != ignore && (y < 0 || y >= classes)) fail_label(n, h, w, y, classes, ignore);
      }
    }
  }
  fail("cross_entropy", "internal: no bad label found again");
}

/// Sum of the weights of all valid pixels; throws for a label that is no class.
template <class L>
double sum_of_weights(const TensorView& labels, const float* weight, std::int64_t classes, std::int64_t ignore) {
  const std::int64_t count = labels.numel();
  const std::int64_t blocks = reduction_blocks(count, 4096, kMostBlocks);
  double partial[kMostBlocks] = {};
  std::int64_t bad[kMostBlocks] = {};
  const L* y = labels.ptr<L>();
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = count * b / blocks;
      const std::int64_t last = count * (b + 1) / blocks;
      std::int64_t valid = 0;
      std::int64_t outside = 0;
#pragma omp simd reduction(+ : valid, outside)
      for (std::int64_t i = first; i < last; ++i) {
        const auto id = static_cast<std::int64_t>(y[i]);
        const bool counts = id != ignore;
        valid += counts ? 1 : 0;
        outside += counts && (id < 0 || id >= classes) ? 1 : 0;
      }
      bad[b] = outside;
      partial[b] = static_cast<double>(valid);
      if (weight == nullptr || outside > 0) continue;
      double sum = 0;
      for (std::int64_t i = first; i < last; ++i) {
        const auto id = static_cast<std::int64_t>(y[i]);
        if (id != ignore) sum += static_cast<double>(weight[id]);
      }
      partial[b] = sum;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (bad[b] > 0) fail_first_bad(labels, classes, ignore);
    total += partial[b];
  }
  return total;
}

/// What every tile needs.
struct Job {
  std::int64_t classes = 0;
  const float* weight = nullptr;  // null: all 1
  float hard = 1;                 // share of the labelled class, 1 - e
  float even = 0;                 // share of every class, e / K
  float weight_sum = 0;           // over the classes
  float scale = 0;                // 1 / divisor of the mean
};

/// Per pixel of a tile. Ignored pixels have valid = 0 and label 0.
struct TileLabels {
  std::int32_t label[kP];
  float valid[kP];
  float hard[kP];  // (1 - e) w[y]
};

template <class L>
void load_labels(const L* y, std::int64_t count, std::int64_t ignore, const Job& job, TileLabels& out) {
  for (std::int64_t p = 0; p < kP; ++p) {
    const bool valid = p < count && static_cast<std::int64_t>(y[p]) != ignore;
    out.label[p] = valid ? static_cast<std::int32_t>(y[p]) : 0;
    out.valid[p] = valid ? 1.0F : 0.0F;
    out.hard[p] = valid ? job.hard * (job.weight != nullptr ? job.weight[out.label[p]] : 1.0F) : 0.0F;
  }
}

/// Loss of the tile's pixels, not yet divided; turns the logits in `x` into their gradient if `gradient`.
double cross_entropy_tile(const Job& job, const TileLabels& labels, bool gradient, float* x) {
  float largest[kP];
  float sum[kP] = {};
  float linear[kP] = {};  // sum_k w[k] (x[k] - max), only for label smoothing
  float chosen[kP];       // x[y] - max
  tile_max(x, job.classes, largest);
  for (std::int64_t p = 0; p < kP; ++p) chosen[p] = x[labels.label[p] * kP + p] - largest[p];
  for (std::int64_t k = 0; k < job.classes; ++k) {
    float* row = x + k * kP;
    const float w = job.even > 0 ? (job.weight != nullptr ? job.weight[k] : 1.0F) : 0.0F;
    if (w > 0) {  // a class of weight 0 may have the logit -infinity
#pragma omp simd
      for (std::int64_t p = 0; p < kP; ++p) linear[p] += w * (row[p] - largest[p]);
    }
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) {
      row[p] = fast_exp(row[p] - largest[p]);
      sum[p] += row[p];
    }
  }

  float loss[kP];
  float slope[kP];  // d(loss)/d(log-sum-exp), times 1 / sum, so that the gradient of class k begins with slope e_k
  const float even_all = job.even * job.weight_sum;
#pragma omp simd
  for (std::int64_t p = 0; p < kP; ++p) {
    const float log_sum = fast_log(sum[p]);
    const float hard = labels.hard[p] > 0 ? labels.hard[p] * (log_sum - chosen[p]) : 0.0F;
    const float smooth = job.even > 0 ? job.even * (job.weight_sum * log_sum - linear[p]) : 0.0F;
    loss[p] = labels.valid[p] > 0 ? hard + smooth : 0.0F;
    slope[p] = (labels.hard[p] + even_all) * job.scale / sum[p];
  }
  double total = 0;
  for (std::int64_t p = 0; p < kP; ++p) total += static_cast<double>(loss[p]);
  if (!gradient) return total;

  for (std::int64_t k = 0; k < job.classes; ++k) {
    float* row = x + k * kP;
    const float even = job.even * (job.weight != nullptr ? job.weight[k] : 1.0F) * job.scale;
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) {
      // A select, not a product with 0: the logits of ignored pixels may be NaN.
      row[p] = labels.valid[p] > 0 ? row[p] * slope[p] - even : 0.0F;
    }
  }
  for (std::int64_t p = 0; p < kP; ++p) x[labels.label[p] * kP + p] -= labels.hard[p] * job.scale;
  return total;
}

template <class T, class L>
double run(const TensorView& logits, const TensorView& labels, const TensorView& glogits, std::int64_t ignore,
           const Job& job) {
  const TilePlan plan(pixel_count(logits));
  double partial[kMostBlocks] = {};
  parallel_for(plan.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(job.classes * kP) * sizeof(float));
    float* tile = scratch.as<float>();
    TileLabels tile_labels;
    for (std::int64_t b = begin; b < end; ++b) {
      double sum = 0;
      plan.for_block(b, [&](std::int64_t first, std::int64_t count) {
        load_labels(labels.ptr<L>() + first, count, ignore, job, tile_labels);
        load_tile(logits.ptr<T>() + first * job.classes, job.classes, count, tile);
        sum += cross_entropy_tile(job, tile_labels, glogits.defined(), tile);
        if (glogits.defined()) store_tile(tile, job.classes, count, glogits.ptr<T>() + first * job.classes);
      });
      partial[b] = sum;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < plan.blocks; ++b) total += partial[b];
  return total;
}

}  // namespace

void cross_entropy_cpu(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                       const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args) {
  Job job;
  job.classes = logits.c();
  job.weight = class_weights.defined() ? class_weights.ptr<float>() : nullptr;
  job.hard = static_cast<float>(1.0 - args.label_smoothing);
  job.even = static_cast<float>(args.label_smoothing / static_cast<double>(job.classes));
  for (std::int64_t k = 0; k < job.classes; ++k) job.weight_sum += job.weight != nullptr ? job.weight[k] : 1.0F;

  visit_fast_dtype("cross_entropy", logits.dtype, [&](auto tag) {
    visit_labels(labels.dtype, [&](auto label_tag) {
      using T = decltype(tag);
      using L = decltype(label_tag);
      const double divisor = sum_of_weights<L>(labels, job.weight, job.classes, args.ignore_index);
      const double scale = divisor > 0 ? 1.0 / divisor : 0.0;
      job.scale = static_cast<float>(scale);
      *loss.ptr<float>() = static_cast<float>(run<T, L>(logits, labels, glogits, args.ignore_index, job) * scale);
    });
  });
}

}  // namespace limbeck::ops
