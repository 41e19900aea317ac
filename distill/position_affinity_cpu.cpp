// Affinities of all pairs of positions. Where an image has more positions than channels, everything follows from products of channels
// with channels, G = [D S]^T [D S] (distill/affinity_pairs.h): the value, the norm of every row of A_S - A_T, and by
// one more product per position the gradient. Where it has fewer positions, A_S - A_T is the smaller matrix and is
// made.
#include <algorithm>
#include <utility>

#include "core/dispatch.h"
#include "core/memory.h"
#include "distill/affinity_pairs.h"
#include "distill/position_affinity.h"

namespace limbeck::distill {
namespace {

constexpr std::int64_t kRun = 256;  // positions whose products are added in f32

/// sums [panels kWidth][columns] += [D S]^T B over `rows` positions. B = [D S] gives a symmetric matrix, of which only
/// the blocks on and above the diagonal are made.
void add_products(const float* pairs, std::int64_t panels, const float* b, std::int64_t b_panels, std::int64_t rows,
                  double* sums) {
  const std::int64_t step = rows * kWidth;
  const std::int64_t stride = b_panels * kWidth;
  const auto add = [&](std::int64_t i, std::int64_t j) {
    add_panel_product(pairs + i * step, b + j * step, rows, sums + (i * stride + j) * kWidth, stride);
  };
  if (pairs != b) {
    parallel_for(panels * b_panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) add(k / b_panels, k % b_panels);
    });
    return;
  }
  // A row of blocks from the diagonal on and one from the other end make panels + 1 blocks together.
  parallel_for(panels / 2 * (panels + 1), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t row = k / (panels + 1);
      const std::int64_t column = row + k % (panels + 1);
      if (column < panels) {
        add(row, column);
      } else {
        add(panels - 1 - row, column - row - 1);
      }
    }
  });
}

void mirror(double* g, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = 0; j < i; ++j) g[i * size + j] = g[j * size + i];
  }
}

/// ||A_S - A_T||^2 = (<D^T D, S^T S> + tr (D^T S)^2) / 2.
double squared_difference(const double* g, std::int64_t width) {
  const std::int64_t size = 2 * width;
  const double* both = g + width;                 // D^T S
  const double* sums = g + width * size + width;  // S^T S
  double total = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      total += g[i * size + j] * sums[i * size + j] + both[i * size + j] * both[j * size + i];
    }
  }
  return std::max(total / 2, 0.0);
}

/// A matrix [rows][columns], given by its elements, as the second operand of multiply_panels().
template <class Element>
void fill_panels(std::int64_t rows, std::int64_t columns, float* out, const Element& element) {
  for (std::int64_t q = 0; q < columns; q += kWidth) {
    for (std::int64_t k = 0; k < rows; ++k) {
      for (std::int64_t j = 0; j < kWidth; ++j) out[q * rows + k * kWidth + j] = static_cast<float>(element(k, q + j));
    }
  }
}

/// One image with more positions than channels. Rows of [D S] times a matrix M with its halves exchanged and halved is
/// (A_S - A_T) times what M is the product of [D S]^T with, because A_S - A_T = (D S^T + S D^T) / 2.
template <class S, class T>
class ManyPositions {
 public:
  ManyPositions(std::int64_t positions, std::int64_t c, std::int64_t d, const AffinityForm& form, bool gradient)
      : width_(panel_count(std::max(c, d)) * kWidth),
        form_(form),
        scales_(bytes<PositionScale>(positions)),
        pairs_(bytes<float>(2 * width_ * kRun)),
        gram_(bytes<double>(4 * width_ * width_)),
        weights_(bytes<float>((form.rownorm ? 4
                               : gradient   ? 2
                                            : 0) *
                              width_ * width_)),
        products_(bytes<float>((form.rownorm ? 2
                                : gradient   ? 1
                                             : 0) *
                               width_ * kRun)),
        weighted_gram_(bytes<double>(form.rownorm && gradient ? 2 * width_ * width_ : 0)),
        weighted_(bytes<float>(form.rownorm && gradient ? width_ * kRun : 0)),
        first_part_(bytes<float>(form.rownorm && gradient ? positions * c : 0)) {}

  /// Sum of the squared or plain row norms; gs = slope times its gradient, or null.
  double run(const ImagePair<S, T>& x, double slope, S* gs) {
    measure_positions(x, form_.epsilon, form_.detach_norm, scales_.as<PositionScale>());
    make_gram(x);
    if (form_.rownorm) {
      const double total = add_row_norms(x, slope, gs != nullptr);
      if (gs != nullptr) store(x, weighted_gram_.as<double>(), slope, gs);
      return total;
    }
    if (gs != nullptr) {
      // [D S]^T F_S = [D S]^T (D + S) / 2: the two halves of every row of the Gram matrix, added.
      double* g = gram_.as<double>();
      const double total = squared_difference(g, width_);
      for (std::int64_t i = 0; i < 2 * width_; ++i) {
        double* row = g + i * 2 * width_;
        for (std::int64_t j = 0; j < width_; ++j) g[i * width_ + j] = (row[j] + row[width_ + j]) / 2;
      }
      store(x, g, 4 * slope, gs);
      return total;
    }
    return squared_difference(gram_.as<double>(), width_);
  }

 private:
  template <class E>
  static std::size_t bytes(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(E);
  }
  [[nodiscard]] std::int64_t panels() const { return width_ / kWidth; }

  template <class Body>
  void for_runs(const ImagePair<S, T>& x, const Body& body) {
    for (std::int64_t first = 0; first < x.positions; first += kRun) {
      const std::int64_t rows = std::min(kRun, x.positions - first);
      fill_pairs(x, scales_.as<PositionScale>(), first, rows, pairs_.as<float>());
      body(first, rows);
    }
  }

  void make_gram(const ImagePair<S, T>& x) {
    double* g = gram_.as<double>();
    std::fill_n(g, 4 * width_ * width_, 0.0);
    const float* pairs = pairs_.as<float>();
    for_runs(x,
             [&](std::int64_t, std::int64_t rows) { add_products(pairs, 2 * panels(), pairs, 2 * panels(), rows, g); });
    mirror(g, 2 * width_);
  }

  /// Weights of multiply_panels() from a product [D S]^T B, [2 width][columns]: halves exchanged, times factor / 2.
  void set_weights(const double* product, std::int64_t columns, double factor) {
    fill_panels(2 * width_, columns, weights_.as<float>(), [&](std::int64_t k, std::int64_t j) {
      return factor / 2 * product[(k < width_ ? k + width_ : k - width_) * columns + j];
    });
  }

  /// Row i of E = (A_S - A_T) [D S] gives the row's norm, ||row||^2 = (E_D . s_i + E_S . d_i) / 2, and its product with
  /// F_S, (E_D + E_S) / 2. Keeps the latter over the norm, and adds up [D S]^T (F_S / norm).
  double add_row_norms(const ImagePair<S, T>& x, double slope, bool gradient) {
    set_weights(gram_.as<double>(), 2 * width_, 1);
    const float* pairs = pairs_.as<float>();
    float* e = products_.as<float>();
    if (gradient) std::fill_n(weighted_gram_.as<double>(), 2 * width_ * width_, 0.0);
    double total = 0;
    for_runs(x, [&](std::int64_t first, std::int64_t rows) {
      multiply_panels(pairs, 2 * panels(), rows * kWidth, rows, weights_.as<float>(), 2 * width_, e);
      double norms[kRun];
      parallel_for(rows, pixel_grain(4 * width_), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          norms[i] = row_norm(e + i * 2 * width_, rows, i);
          if (gradient) keep(x, e + i * 2 * width_, norms[i], slope, first, rows, i);
        }
      });
      for (std::int64_t i = 0; i < rows; ++i) total += norms[i];
      if (gradient) {
        add_products(pairs, 2 * panels(), weighted_.as<float>(), panels(), rows, weighted_gram_.as<double>());
      }
    });
    return total;
  }

  double row_norm(const float* e, std::int64_t rows, std::int64_t i) const {
    double squares = 0;
    for (std::int64_t p = 0; p < panels(); ++p) {
      const float* d = pairs_.as<float>() + (p * rows + i) * kWidth;
      const float* s = d + panels() * rows * kWidth;
      squares += static_cast<double>(row_dot(e + p * kWidth, s, kWidth));
      squares += static_cast<double>(row_dot(e + width_ + p * kWidth, d, kWidth));
    }
    return squares <= 0 ? 0 : std::sqrt(squares / 2);
  }

  void keep(const ImagePair<S, T>& x, const float* e, double norm, double slope, std::int64_t first, std::int64_t rows,
            std::int64_t i) {
    const double weight = norm == 0 ? 0 : 1 / norm;
    float* part = first_part_.as<float>() + (first + i) * x.c;
    const auto half = static_cast<float>(slope * weight / 2);
    for (std::int64_t k = 0; k < x.c; ++k) part[k] = half * (e[k] + e[width_ + k]);
    for (std::int64_t p = 0; p < panels(); ++p) {
      const float* d = pairs_.as<float>() + (p * rows + i) * kWidth;
      const float* s = d + panels() * rows * kWidth;
      float* out = weighted_.as<float>() + (p * rows + i) * kWidth;
      for (std::int64_t k = 0; k < kWidth; ++k) out[k] = static_cast<float>(weight / 2) * (d[k] + s[k]);
    }
  }

  /// gs from (A_S - A_T) times what `product` is the product of [D S]^T with, and the part that is there already.
  void store(const ImagePair<S, T>& x, const double* product, double factor, S* gs) {
    set_weights(product, width_, factor);
    float* g = products_.as<float>();
    for_runs(x, [&](std::int64_t first, std::int64_t rows) {
      multiply_panels(pairs_.as<float>(), 2 * panels(), rows * kWidth, rows, weights_.as<float>(), width_, g);
      parallel_for(rows, pixel_grain(x.c), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          float* row = g + i * width_;
          if (form_.rownorm) row_add(1.0F, first_part_.as<float>() + (first + i) * x.c, row, x.c);
          store_gradient(x.s + (first + i) * x.c, scales_.as<PositionScale>()[first + i], row, x.c,
                         gs + (first + i) * x.c);
        }
      });
    });
  }

  std::int64_t width_;  // channels with padding
  AffinityForm form_;
  Workspace scales_, pairs_, gram_, weights_, products_, weighted_gram_, weighted_, first_part_;
};

/// One image with fewer positions than channels: Z = D S^T by channels, A_S - A_T = (Z + Z^T) / 2.
template <class S, class T>
class FewPositions {
 public:
  FewPositions(std::int64_t positions, std::int64_t c, std::int64_t d, const AffinityForm& form, bool gradient)
      : size_(panel_count(positions) * kWidth),
        width_(panel_count(std::max(c, d)) * kWidth),
        form_(form),
        scales_(static_cast<std::size_t>(positions) * sizeof(PositionScale)),
        pairs_(static_cast<std::size_t>(2 * width_ * positions) * sizeof(float)),
        turned_(static_cast<std::size_t>(2 * width_ * size_) * sizeof(float)),
        difference_(static_cast<std::size_t>(size_ * size_) * sizeof(double)),
        weights_(static_cast<std::size_t>(gradient ? size_ * size_ : 0) * sizeof(float)),
        rows_(static_cast<std::size_t>(gradient ? width_ * size_ : 0) * sizeof(float)),
        norms_(static_cast<std::size_t>(size_) * sizeof(double)) {}

  /// As ManyPositions::run.
  double run(const ImagePair<S, T>& x, double slope, S* gs) {
    measure_positions(x, form_.epsilon, form_.detach_norm, scales_.as<PositionScale>());
    fill_pairs(x, scales_.as<PositionScale>(), 0, x.positions, pairs_.as<float>());
    make_difference(x.positions);
    double total = 0;
    for (std::int64_t i = 0; i < x.positions; ++i) {
      double squares = 0;
      for (std::int64_t j = 0; j < x.positions; ++j) squares += at(i, j) * at(i, j);
      const double norm = std::sqrt(squares);
      norms_.as<double>()[i] = form_.rownorm ? (norm == 0 ? 0 : 1 / norm) : 2;
      total += form_.rownorm ? norm : squares;
    }
    if (gs != nullptr) store(x, slope, gs);
    return total;
  }

 private:
  double& at(std::int64_t i, std::int64_t j) { return difference_.as<double>()[i * size_ + j]; }
  [[nodiscard]] std::int64_t panels() const { return size_ / kWidth; }

  /// Panels of positions instead of channels: [D, S][panel][channel][position].
  void turn(std::int64_t positions) {
    parallel_for(2 * panels(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t q = begin; q < end; ++q) {
        const float* in = pairs_.as<float>() + q / panels() * width_ * positions;
        float* out = turned_.as<float>() + q * width_ * kWidth;
        for (std::int64_t k = 0; k < width_; ++k) {
          for (std::int64_t j = 0; j < kWidth; ++j) {
            const std::int64_t position = q % panels() * kWidth + j;
            const bool exists = position < positions;
            out[k * kWidth + j] = exists ? in[(k / kWidth * positions + position) * kWidth + k % kWidth] : 0.0F;
          }
        }
      }
    });
  }

  void make_difference(std::int64_t positions) {
    turn(positions);
    std::fill_n(difference_.as<double>(), size_ * size_, 0.0);
    const float* d = turned_.as<float>();
    const float* s = d + size_ * width_;
    parallel_for(panels() * panels(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t i = k / panels();
        const std::int64_t j = k % panels();
        for (std::int64_t first = 0; first < width_; first += kRun) {
          const std::int64_t channels = std::min(kRun, width_ - first);
          add_panel_product(d + (i * width_ + first) * kWidth, s + (j * width_ + first) * kWidth, channels,
                            &at(i * kWidth, j * kWidth), size_);
        }
      }
    });
    for (std::int64_t i = 0; i < size_; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) at(i, j) = at(j, i) = (at(i, j) + at(j, i)) / 2;
    }
  }

  /// Row i: slope sum_j (A_S - A_T)_ij (w_i + w_j) f_j.
  void store(const ImagePair<S, T>& x, double slope, S* gs) {
    const double* w = norms_.as<double>();
    float* a = weights_.as<float>();  // the first operand: panels of positions
    for (std::int64_t p = 0; p < panels(); ++p) {
      for (std::int64_t i = 0; i < x.positions; ++i) {
        for (std::int64_t k = 0; k < kWidth; ++k) {
          const std::int64_t j = p * kWidth + k;
          const double weight = j < x.positions ? w[i] + w[j] : 0;
          a[(p * x.positions + i) * kWidth + k] = static_cast<float>(slope * weight * at(i, j));
        }
      }
    }
    const PositionScale* scales = scales_.as<PositionScale>();
    float* f = rows_.as<float>();
    float* g = turned_.as<float>();  // no longer needed
    const std::int64_t columns = panel_count(x.c) * kWidth;
    fill_panels(size_, columns, f, [&](std::int64_t j, std::int64_t k) {
      return j < x.positions && k < x.c ? static_cast<float>(x.s[j * x.c + k]) * scales[j].inverse : 0.0F;
    });
    multiply_panels(a, panels(), x.positions * kWidth, x.positions, f, columns, g);
    for (std::int64_t i = 0; i < x.positions; ++i) {
      store_gradient(x.s + i * x.c, scales[i], g + i * columns, x.c, gs + i * x.c);
    }
  }

  std::int64_t size_;   // positions with padding
  std::int64_t width_;  // channels with padding
  AffinityForm form_;
  Workspace scales_, pairs_, turned_, difference_, weights_, rows_, norms_;
};

template <template <class, class> class Image, class S, class T>
double run(const TensorView& student, const TensorView& teacher, const TensorView& gstudent, const AffinityForm& form,
           double slope) {
  const std::int64_t m = student.h() * student.w();
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  Image<S, T> image(m, c, d, form, gstudent.defined());
  double total = 0;
  for (std::int64_t n = 0; n < student.n(); ++n) {
    const ImagePair<S, T> x{student.ptr<S>() + n * m * c, teacher.ptr<T>() + n * m * d, m, c, d};
    total += image.run(x, slope, gstudent.defined() ? gstudent.ptr<S>() + n * m * c : nullptr);
  }
  return total;
}

}  // namespace

double affinity_difference(const TensorView& student, const TensorView& teacher, const TensorView& gstudent,
                           const AffinityForm& form, double slope) {
  const bool few = student.h() * student.w() < std::max(student.c(), teacher.c());
  double total = 0;
  visit_fast_dtype("affinity_difference", student.dtype, [&](auto student_tag) {
    visit_fast_dtype("affinity_difference", teacher.dtype, [&](auto teacher_tag) {
      using S = decltype(student_tag);
      using T = decltype(teacher_tag);
      total = few ? run<FewPositions, S, T>(student, teacher, gstudent, form, slope)
                  : run<ManyPositions, S, T>(student, teacher, gstudent, form, slope);
    });
  });
  return total;
}

}  // namespace limbeck::distill
