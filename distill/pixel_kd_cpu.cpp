// Vectorised pixel-wise distillation loss for channels-last maps, f32 and bf16 in any mix. One sweep: a tile of 32
// pixels of both maps is transposed into cache (ops/pixel_tile.h), gives its loss, becomes the gradient, is stored.
#include <algorithm>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/pixel_kd_kernels.h"
#include "ops/map_view.h"
#include "ops/pixel_tile.h"

namespace limbeck::distill {
namespace {

using ops::kTilePixels;
constexpr std::int64_t kP = kTilePixels;
constexpr std::int64_t kMostBlocks = 64;

/// One 1 per valid pixel of a tile; pixels beyond the map are not valid.
void load_valid(const TensorView& labels, std::int64_t first, std::int64_t count, std::int64_t ignore, float* valid) {
  const auto fill = [&](const auto* y) {
    for (std::int64_t p = 0; p < kP; ++p) {
      valid[p] = p < count && static_cast<std::int64_t>(y[p]) != ignore ? 1.0F : 0.0F;
    }
  };
  if (!labels.defined()) {
    for (std::int64_t p = 0; p < kP; ++p) valid[p] = p < count ? 1.0F : 0.0F;
  } else if (labels.dtype == DType::kU8) {
    fill(labels.ptr<std::uint8_t>() + first);
  } else if (labels.dtype == DType::kI32) {
    fill(labels.ptr<std::int32_t>() + first);
  } else {
    fill(labels.ptr<std::int64_t>() + first);
  }
}

std::int64_t count_valid(const TensorView& labels, std::int64_t pixels, std::int64_t ignore) {
  if (!labels.defined()) return pixels;
  std::int64_t valid = 0;
  const auto count = [&](const auto* y) {
#pragma omp simd reduction(+ : valid)
    for (std::int64_t i = 0; i < pixels; ++i) valid += static_cast<std::int64_t>(y[i]) != ignore ? 1 : 0;
  };
  if (labels.dtype == DType::kU8) {
    count(labels.ptr<std::uint8_t>());
  } else if (labels.dtype == DType::kI32) {
    count(labels.ptr<std::int32_t>());
  } else {
    count(labels.ptr<std::int64_t>());
  }
  return valid;
}

struct Job {
  std::int64_t channels = 0;
  float inverse_tau = 1;
  float entropy = 1;  // 1: subtract the teacher's entropy (KL); 0: cross-entropy form
  float slope = 0;    // factor / tau
};

/// Loss of the tile's pixels, not yet multiplied by the factor; with `gradient`, `s` becomes the gradient of the student.
double pixel_kd_tile(const Job& job, const float* valid, bool gradient, float* s, float* t) {
  float top_s[kP];
  float top_t[kP];
  float sum_s[kP] = {};
  float sum_t[kP] = {};
  float sum_d[kP] = {};  // sum of e_T times the difference of the shifted logits
  ops::tile_max(s, job.channels, top_s);
  ops::tile_max(t, job.channels, top_t);
  for (std::int64_t c = 0; c < job.channels; ++c) {
    float* sr = s + c * kP;
    float* tr = t + c * kP;
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) {
      const float ds = (sr[p] - top_s[p]) * job.inverse_tau;
      const float dt = (tr[p] - top_t[p]) * job.inverse_tau;
      const float es = fast_exp(ds);
      const float et = fast_exp(dt);
      sum_s[p] += es;
      sum_t[p] += et;
      // 0 times infinity: a class that the teacher excludes contributes nothing, even if its logit is -infinity. The
      // test is on the product because one on et would become a branch; a NaN in the maps still shows in the sums of e.
      const float term = et * (job.entropy * dt - ds);
      sum_d[p] += term == term ? term : 0.0F;
      sr[p] = es;
      tr[p] = et;
    }
  }

  float loss[kP];
  float scale[kP];
  float ratio[kP];
#pragma omp simd
  for (std::int64_t p = 0; p < kP; ++p) {
    const float value = sum_d[p] / sum_t[p] + (fast_log(sum_s[p]) - job.entropy * fast_log(sum_t[p]));
    loss[p] = valid[p] > 0 ? value : 0.0F;
    scale[p] = job.slope / sum_s[p];
    ratio[p] = sum_s[p] / sum_t[p];
  }
  double total = 0;
  for (std::int64_t p = 0; p < kP; ++p) total += static_cast<double>(loss[p]);
  if (!gradient) return total;

  for (std::int64_t c = 0; c < job.channels; ++c) {
    float* sr = s + c * kP;
    const float* tr = t + c * kP;
#pragma omp simd
    for (std::int64_t p = 0; p < kP; ++p) {
      // slope (e_S / sum_S - e_T / sum_T), written so that equal maps give exactly 0 with and without fused multiply-add
      const float g = scale[p] * (sr[p] - tr[p] * ratio[p]);
      sr[p] = valid[p] > 0 ? g : 0.0F;
    }
  }
  return total;
}

template <class S, class T>
double run(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& gstudent,
           std::int64_t ignore, const Job& job) {
  const ops::TilePlan plan(ops::pixel_count(student));
  const std::int64_t c = job.channels;
  double partial[kMostBlocks] = {};
  parallel_for(plan.blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(2 * c * kP) * sizeof(float));
    float* s = scratch.as<float>();
    float* t = s + c * kP;
    float valid[kP];
    for (std::int64_t b = begin; b < end; ++b) {
      double sum = 0;
      plan.for_block(b, [&](std::int64_t first, std::int64_t count) {
        load_valid(labels, first, count, ignore, valid);
        ops::load_tile(student.ptr<S>() + first * c, c, count, s);
        ops::load_tile(teacher.ptr<T>() + first * c, c, count, t);
        sum += pixel_kd_tile(job, valid, gstudent.defined(), s, t);
        if (gstudent.defined()) ops::store_tile(s, c, count, gstudent.ptr<S>() + first * c);
      });
      partial[b] = sum;
    }
  });
  double total = 0;
  for (std::int64_t b = 0; b < plan.blocks; ++b) total += partial[b];
  return total;
}

}  // namespace

void pixel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                  const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options) {
  const std::int64_t pixels = ops::pixel_count(student);
  const double factor = pixel_kd_factor(student, count_valid(labels, pixels, options.ignore_index), options);
  Job job;
  job.channels = student.c();
  job.inverse_tau = static_cast<float>(1 / options.tau);
  job.entropy = options.reduction == PixelKdReduction::kSkdCrossEntropy ? 0.0F : 1.0F;
  job.slope = static_cast<float>(factor / options.tau);
  visit_fast_dtype("pixel_kd", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("pixel_kd", teacher.dtype, [&](auto teacher_tag) {
      const double sum = run<decltype(student_tag), decltype(teacher_tag)>(student, teacher, labels, gstudent,
                                                                           options.ignore_index, job);
      *loss.ptr<float>() = static_cast<float>(factor * sum);
    });
  });
}

}  // namespace limbeck::distill
