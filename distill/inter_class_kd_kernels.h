// What this is: kernel signatures and tables of the inter-class similarity loss, and its work on the small matrices.
#pragma once

#include <cstdint>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/gram_rows.h"
#include "distill/inter_class_kd.h"

namespace limbeck::distill {

/// loss = the value of distill/inter_class_kd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,C,h,w]; loss 0-d
using IcsdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const IcsdOptions& options);
/// Shapes:   logits [N,C,H,W], matrix [C,C] f32 (f64 for f64)
using InterClassSimilarityFn = void(const TensorView& logits, double tau, const TensorView& matrix);

void icsd_ref(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
              const IcsdOptions& options);
void icsd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
              const IcsdOptions& options);
void icsd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
               const IcsdOptions& options);
void inter_class_similarity_ref(const TensorView& logits, double tau, const TensorView& matrix);
void inter_class_similarity_cpu(const TensorView& logits, double tau, const TensorView& matrix);
void inter_class_similarity_cuda(const TensorView& logits, double tau, const TensorView& matrix);

/// IcsdMode::kOfficialCode of the fast kernels.
void icsd_code_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent, const IcsdOptions& options);
void icsd_code_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const IcsdOptions& options);

inline constexpr KernelTable<IcsdFn> kIcsd{"icsd", icsd_ref, icsd_cpu, icsd_cuda};
inline constexpr KernelTable<InterClassSimilarityFn> kInterClassSimilarity{
    "inter_class_similarity", inter_class_similarity_ref, inter_class_similarity_cpu, inter_class_similarity_cuda};

/// k = mean of the `images` matrices that start there, written into the first.
/// Shapes:   k [images][size]
inline void average_matrices(std::int64_t images, std::int64_t size, double* k) {
  for (std::int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (std::int64_t n = 0; n < images; ++n) sum += k[n * size + i];
    k[i] = sum / static_cast<double>(images);
  }
}

/// How a mode compares matrices.
struct IcsdComparison {
  bool each;      ///< one matrix per image, not their mean
  bool raw;       ///< rows as they are
  double factor;  ///< of the sum of squares
};

/// Shapes:   none
[[nodiscard]] inline IcsdComparison icsd_comparison(IcsdMode mode, std::int64_t images, std::int64_t c) {
  const bool each = mode == IcsdMode::kImageRaw || mode == IcsdMode::kImageNorm;
  const bool raw = mode == IcsdMode::kPaperRaw || mode == IcsdMode::kImageRaw;
  const bool by_batch = each || mode == IcsdMode::kPaperNorm || mode == IcsdMode::kOfficialCode;
  return {each, raw, 1 / (static_cast<double>(c * c) * (by_batch ? static_cast<double>(images) : 1.0))};
}

/// The loss between the matrices of all images. k_s becomes dL/dK of every image, k_t is overwritten.
/// Shapes:   k_s, k_t [images][c][c]
[[nodiscard]] inline double compare_matrices(const IcsdOptions& options, std::int64_t images, std::int64_t c,
                                             double* k_s, double* k_t) {
  const auto [each, raw, factor] = icsd_comparison(options.mode, images, c);
  const std::int64_t size = c * c;
  const auto compare = [&](double* s, double* t) {
    if (!raw) return row_normalised_loss(c, factor, s, t);
    double total = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      const double difference = s[i] - t[i];
      total += difference * difference;
      s[i] = 2 * factor * difference;
    }
    return factor * total;
  };
  if (each) {
    double total = 0;
    for (std::int64_t n = 0; n < images; ++n) total += compare(k_s + n * size, k_t + n * size);
    return total;
  }
  average_matrices(images, size, k_s);
  average_matrices(images, size, k_t);
  const double loss = compare(k_s, k_t);
  for (std::int64_t i = 0; i < size; ++i) k_s[i] /= static_cast<double>(images);
  for (std::int64_t n = 1; n < images; ++n) std::copy_n(k_s, size, k_s + n * size);
  return loss;
}

}  // namespace limbeck::distill
