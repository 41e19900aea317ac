// Vectorised adaptation loss for channels-last maps: an image and a position are both one stretch of memory, so both
// scopes are the same kernel over vectors of another length.
//
// Note [unscaled difference]
//   a - b is computed as (s - r t) / divisor_s with r = divisor_s / divisor_t. For equal vectors r is exactly 1 and the
//   difference exactly 0; s / divisor_s - t / divisor_t would leave the rounding of a fused multiply-add.
#include <cmath>

#include "distill/flat_sum.h"
#include "distill/ka_adapt_kernels.h"
#include "distill/row_math.h"

namespace limbeck::distill {
namespace {

/// Powers of one exponent. Kind 1 and 2 are that exponent; 0 is any other, on numbers divided by the largest magnitude,
/// so that no power overflows.
template <int Kind>
struct Powers {
  float e;
  float scale = 1;  ///< 1 / largest magnitude

  /// |scale x|^e
  [[nodiscard]] float whole(float x) const {
    if constexpr (Kind == 1) return x < 0.0F ? -x : x;
    if constexpr (Kind == 2) return x * x;
    return std::pow(std::abs(x) * scale, e);
  }
  /// sign(x) |scale x|^(e-1)
  [[nodiscard]] float less_one(float x) const {
    if constexpr (Kind == 1) return x < 0.0F ? -1.0F : x > 0.0F ? 1.0F : x;
    if constexpr (Kind == 2) return x;
    return std::copysign(std::pow(std::abs(x) * scale, e - 1.0F), x);
  }
  /// The norm, given the sum of whole().
  [[nodiscard]] double norm(double sum) const {
    if constexpr (Kind == 1) return sum;
    if constexpr (Kind == 2) return std::sqrt(sum);
    return std::pow(sum, 1 / static_cast<double>(e)) / static_cast<double>(scale);
  }
  /// What less_one() is multiplied by to give the derivative of the norm; 0 for a norm of 0.
  [[nodiscard]] double slope(double norm) const {
    if (norm == 0) return 0;
    return Kind == 1 ? 1 : std::pow(norm * static_cast<double>(scale), 1 - static_cast<double>(e));
  }
};

/// Calls body(Powers<..>) for the exponent e.
template <class Body>
void visit_exponent(double e, const Body& body) {
  if (e == 1) {
    body(Powers<1>{1});
  } else if (e == 2) {
    body(Powers<2>{2});
  } else {
    body(Powers<0>{static_cast<float>(e)});
  }
}

/// s - ratio t; see Note [unscaled difference].
template <class S, class T>
float difference(S s, T t, float ratio) {
  return static_cast<float>(s) - ratio * static_cast<float>(t);
}

/// Sets the scale of `powers` for the numbers value(0 .. length-1), if its kind needs one.
template <int Kind, class Value>
void set_scale(Powers<Kind>& powers, std::int64_t length, const Value& value) {
  if constexpr (Kind != 0) return;
  float largest = 0;
  for (std::int64_t i = 0; i < length; ++i) largest = std::max(largest, std::abs(value(i)));
  powers.scale = largest > 0.0F ? 1.0F / largest : 1.0F;
}

template <int Kind, class T>
float sum_powers(Powers<Kind> powers, const T* x, std::int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += powers.whole(static_cast<float>(x[i]));
  return sum;
}

template <int Kind, class T>
double norm_of(Powers<Kind> powers, const T* x, std::int64_t length) {
  set_scale(powers, length, [=](std::int64_t i) { return static_cast<float>(x[i]); });
  const auto sums = flat_sums<1>(length, [=](std::int64_t begin, std::int64_t end) {
    return std::array{sum_powers(powers, x + begin, end - begin)};
  });
  return powers.norm(sums[0]);
}

/// Sums of the powers of the differences, and of the products of their derivatives with s.
template <int Kind, class S, class T>
std::array<float, 2> sum_differences(Powers<Kind> p, const S* s, const T* t, float ratio, std::int64_t count) {
  float sum = 0;
  float product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = difference(s[i], t[i], ratio);
    sum += p.whole(d);
    product += p.less_one(d) * static_cast<float>(s[i]);
  }
  return {sum, product};
}

/// The two parts of the gradient, each with its factor.
template <int P, int Q, class S, class T>
void store_gradient(Powers<P> p, Powers<Q> q, const S* s, const T* t, float ratio, float of_difference, float of_norm,
                    std::int64_t count, S* gs) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = difference(s[i], t[i], ratio);
    gs[i] = static_cast<S>(of_difference * p.less_one(d) - of_norm * q.less_one(static_cast<float>(s[i])));
  }
}

/// ||a - b||_p of one vector; gs = factor times its gradient, or null.
template <int P, int Q, class S, class T>
double vector_distance(Powers<P> p, Powers<Q> q, const S* s, const T* t, S* gs, std::int64_t length, double factor) {
  const double norm_s = norm_of(q, s, length);
  const double divisor = norm_s + kKaEpsilon;
  const auto ratio = static_cast<float>(divisor / (norm_of(q, t, length) + kKaEpsilon));
  set_scale(p, length, [=](std::int64_t i) { return difference(s[i], t[i], ratio); });
  const auto [powers, along] = flat_sums<2>(length, [=](std::int64_t begin, std::int64_t end) {
    return sum_differences(p, s + begin, t + begin, ratio, end - begin);
  });
  const double distance = p.norm(powers);
  if (gs == nullptr) return distance / divisor;
  if (norm_s == 0 || distance == 0) {
    std::fill_n(gs, length, S(0.0F));
    return distance / divisor;
  }
  set_scale(q, length, [=](std::int64_t i) { return static_cast<float>(s[i]); });
  const double slope = p.slope(distance) * factor / divisor;
  const auto of_difference = static_cast<float>(slope);
  const auto of_norm = static_cast<float>(slope * along / divisor * q.slope(norm_s));
  parallel_for(length, 16384, [=](std::int64_t begin, std::int64_t end) {
    store_gradient(p, q, s + begin, t + begin, ratio, of_difference, of_norm, end - begin, gs + begin);
  });
  return distance / divisor;
}

/// Positions are shared out in blocks; images are few, and their vectors are shared out inside.
template <class Body>
double sum_vectors(std::int64_t count, std::int64_t length, const Body& body) {
  constexpr std::int64_t kMostBlocks = 64;
  const std::int64_t blocks = reduction_blocks(count, pixel_grain(length), kMostBlocks);
  double partial[kMostBlocks] = {};
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      for (std::int64_t v = count * b / blocks; v < count * (b + 1) / blocks; ++v) partial[b] += body(v);
    }
  };
  if (length > kFlatRun) {
    run(0, blocks);
  } else {
    parallel_for(blocks, 1, run);
  }
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) total += partial[b];
  return total;
}

}  // namespace

void ka_adapt_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                  const TensorView& gstudent, const KaAdaptOptions& options) {
  const std::int64_t count = ka_vector_count(student, options.scope);
  const std::int64_t length = student.numel() / count;
  const double factor = ka_adapt_factor(student, options);
  double total = 0;
  visit_fast_dtype("ka_adapt", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("ka_adapt", teacher.dtype, [&](auto teacher_tag) {
      using S = decltype(student_tag);
      const S* s = student.ptr<S>();
      const auto* t = teacher.ptr<decltype(teacher_tag)>();
      S* gs = gstudent.defined() ? gstudent.ptr<S>() : nullptr;
      visit_exponent(options.p, [&](auto p) {
        visit_exponent(options.q, [&](auto q) {
          total = sum_vectors(count, length, [&](std::int64_t v) {
            return vector_distance(p, q, s + v * length, t + v * length, gs == nullptr ? nullptr : gs + v * length,
                                   length, factor);
          });
        });
      });
    });
  });
  *loss.ptr<float>() = static_cast<float>(factor * total);
}

}  // namespace limbeck::distill
