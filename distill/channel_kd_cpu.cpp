// Vectorised channel-wise distillation loss for channels-last maps, f32 and bf16 in any mix.
//   visit 1  chunk by chunk: per channel the maxima of both maps, then from cache the three sums of Sums
//   between  the chunks of an image are brought to common maxima, in double, in order: the loss, and two factors
//   visit 2  the gradient
// Rows, lanes and chunks: see ops/spatial_pass.h.
#include <algorithm>
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/channel_kd_kernels.h"
#include "ops/spatial_pass.h"

namespace limbeck::distill {
namespace {

using ops::SpatialPlan;

/// Statistics of both maps, each an array [sections][c], where a section is a chunk or a whole image.
/// d = (t - top_t) - (s - top_s) is the difference of the shifted logits; shifting both first keeps it exact when the
/// maps sit on large offsets.
struct Sums {
  double* top_s;
  double* top_t;
  double* sum_s;  // sum exp((s - top_s) / tau)
  double* sum_t;  // sum exp((t - top_t) / tau)
  double* sum_d;  // sum exp((t - top_t) / tau) d
  static constexpr std::int64_t kArrays = 5;
  Sums(double* base, std::int64_t slots)
      : top_s(base), top_t(base + slots), sum_s(base + 2 * slots), sum_t(base + 3 * slots), sum_d(base + 4 * slots) {}
};

template <class S, class T>
void statistics(const SpatialPlan& plan, const S* student, const T* teacher, const ChannelKdOptions& options,
                const Sums& out) {
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  const float entropy = options.cross_entropy_form ? 0.0F : 1.0F;
  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(5 * plan.row) * sizeof(float));
    float* top_s = scratch.as<float>();
    float* top_t = top_s + plan.row;
    float* sum_s = top_t + plan.row;
    float* sum_t = sum_s + plan.row;
    float* sum_d = sum_t + plan.row;
    for (std::int64_t k = begin; k < end; ++k) {
      const S* s = student + plan.begin(k);
      const T* t = teacher + plan.begin(k);
      ops::chunk_max(plan, s, plan.length(k), top_s);
      ops::chunk_max(plan, t, plan.length(k), top_t);
      std::fill_n(sum_s, 3 * plan.row, 0.0F);
      ops::for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
        const S* sr = s + at;
        const T* tr = t + at;
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          const float ds = static_cast<float>(sr[j]) - top_s[j];
          const float dt = static_cast<float>(tr[j]) - top_t[j];
          const float et = fast_exp(dt * inverse_tau);
          sum_s[j] += fast_exp(ds * inverse_tau);
          sum_t[j] += et;
          // 0 times infinity: a position that the teacher excludes contributes nothing. The test is on the product because
          // one on et would become a branch; a NaN in the maps still shows in the sums of e.
          const float term = et * (entropy * dt - ds);
          sum_d[j] += term == term ? term : 0.0F;
        }
      });
      const std::int64_t slot = k * plan.c;
      for (std::int64_t ch = 0; ch < plan.c; ++ch) {
        out.top_s[slot + ch] = static_cast<double>(top_s[ch]);
        out.top_t[slot + ch] = static_cast<double>(top_t[ch]);
      }
      ops::fold_sum(plan, sum_s, out.sum_s + slot);
      ops::fold_sum(plan, sum_t, out.sum_t + slot);
      ops::fold_sum(plan, sum_d, out.sum_d + slot);
    }
  });
}

/// Brings the chunks of every image to common maxima and adds them up, in order. Returns the divergence summed over
/// images and channels.
double combine(const SpatialPlan& plan, const ChannelKdOptions& options, const Sums& chunk, const Sums& image) {
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  const double entropy = options.cross_entropy_form ? 0.0 : 1.0;
  double total = 0;
  for (std::int64_t n = 0; n < plan.images; ++n) {
    double* top_s = image.top_s + n * plan.c;
    double* top_t = image.top_t + n * plan.c;
    double* sum_s = image.sum_s + n * plan.c;
    double* sum_t = image.sum_t + n * plan.c;
    double* sum_d = image.sum_d + n * plan.c;
    const std::int64_t first = n * plan.chunks * plan.c;
    const std::int64_t end = first + plan.chunks * plan.c;
    std::copy_n(chunk.top_s + first, plan.c, top_s);
    std::copy_n(chunk.top_t + first, plan.c, top_t);
    for (std::int64_t i = first; i < end; i += plan.c) {
      for (std::int64_t ch = 0; ch < plan.c; ++ch) {
        top_s[ch] = std::max(top_s[ch], chunk.top_s[i + ch]);
        top_t[ch] = std::max(top_t[ch], chunk.top_t[i + ch]);
      }
    }
    std::fill_n(sum_s, plan.c, 0.0);
    std::fill_n(sum_t, plan.c, 0.0);
    std::fill_n(sum_d, plan.c, 0.0);
    for (std::int64_t i = first; i < end; i += plan.c) {
#pragma omp simd
      for (std::int64_t ch = 0; ch < plan.c; ++ch) {
        const double down_s = chunk.top_s[i + ch] - top_s[ch];
        const double down_t = chunk.top_t[i + ch] - top_t[ch];
        const auto es = static_cast<double>(fast_exp(static_cast<float>(down_s) * inverse_tau));
        const auto et = static_cast<double>(fast_exp(static_cast<float>(down_t) * inverse_tau));
        sum_s[ch] += chunk.sum_s[i + ch] * es;
        sum_t[ch] += chunk.sum_t[i + ch] * et;
        const double d = et * (chunk.sum_d[i + ch] + chunk.sum_t[i + ch] * (entropy * down_t - down_s));
        sum_d[ch] += et > 0 ? d : 0.0;
      }
    }
    for (std::int64_t ch = 0; ch < plan.c; ++ch) {
      total += sum_d[ch] / (options.tau * sum_t[ch]) + std::log(sum_s[ch]) - entropy * std::log(sum_t[ch]);
    }
  }
  return total;
}

template <class S, class T>
void gradient(const SpatialPlan& plan, const S* student, const T* teacher, const ChannelKdOptions& options, double maps,
              const Sums& sums, S* gstudent) {
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  const double slope = options.tau / maps;
  for (std::int64_t i = 0; i < plan.images * plan.c; ++i) {  // the sums become the factors of the row loop below
    sums.sum_t[i] = sums.sum_s[i] / sums.sum_t[i];
    sums.sum_s[i] = slope / sums.sum_s[i];
  }
  parallel_for(plan.total_chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(4 * plan.row) * sizeof(float));
    float* top_s = scratch.as<float>();
    float* top_t = top_s + plan.row;
    float* scale = top_t + plan.row;
    float* ratio = scale + plan.row;
    std::int64_t image = -1;
    for (std::int64_t k = begin; k < end; ++k) {
      if (k / plan.chunks != image) {
        image = k / plan.chunks;
        const std::int64_t slot = image * plan.c;
        ops::spread(plan, sums.top_s + slot, top_s);
        ops::spread(plan, sums.top_t + slot, top_t);
        ops::spread(plan, sums.sum_s + slot, scale);
        ops::spread(plan, sums.sum_t + slot, ratio);
      }
      const S* s = student + plan.begin(k);
      const T* t = teacher + plan.begin(k);
      S* g = gstudent + plan.begin(k);
      ops::for_rows(plan, plan.length(k), [&](std::int64_t at, std::int64_t count) {
        const S* sr = s + at;
        const T* tr = t + at;
        S* gr = g + at;
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
          const float es = fast_exp((static_cast<float>(sr[j]) - top_s[j]) * inverse_tau);
          const float et = fast_exp((static_cast<float>(tr[j]) - top_t[j]) * inverse_tau);
          // slope (e_S / sum_S - e_T / sum_T), written so that equal maps give exactly 0
          gr[j] = static_cast<S>(scale[j] * (es - et * ratio[j]));
        }
      });
    }
  });
}

}  // namespace

void channel_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const ChannelKdOptions& options) {
  const SpatialPlan plan(student);
  const std::int64_t chunk_slots = plan.total_chunks() * plan.c;
  const std::int64_t image_slots = plan.images * plan.c;
  const Workspace partial(static_cast<std::size_t>(Sums::kArrays * (chunk_slots + image_slots)) * sizeof(double));
  const Sums chunk(partial.as<double>(), chunk_slots);
  const Sums image(partial.as<double>() + Sums::kArrays * chunk_slots, image_slots);
  visit_fast_dtype("channel_kd", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("channel_kd", teacher.dtype, [&](auto teacher_tag) {
      using S = decltype(student_tag);
      using T = decltype(teacher_tag);
      statistics(plan, student.ptr<S>(), teacher.ptr<T>(), options, chunk);
      const double total = combine(plan, options, chunk, image);
      const double maps = channel_kd_divisor(student, options);
      *loss.ptr<float>() = static_cast<float>(options.tau * options.tau / maps * total);
      if (gstudent.defined()) {
        gradient(plan, student.ptr<S>(), teacher.ptr<T>(), options, maps, image, gstudent.ptr<S>());
      }
    });
  });
}

}  // namespace limbeck::distill
