// Affinities of all pairs of positions on the GPU; the algebra is that of distill/affinity_pairs.h and of position_affinity_cpu.cpp. With
// D and S the differences and sums of the normalised vectors, everything is a product of [D S] (computed where it is used) with itself
// or with a small matrix. Maps of many positions: [D S]^T [D S], channels by channels; maps of few: D S^T, positions by positions.
#include "core/cuda/columns.cuh"
#include "core/cuda/products.cuh"
#include "distill/position_affinity.h"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::PixelLane;

/// What one position's vectors are multiplied by; see distill/affinity_pairs.h.
struct Scale {
  float inverse, ratio, rest, slope, stretch;
};

/// Some images of both maps, and the scales of their positions.
template <class S, class T>
struct Images {
  const S* s;
  const T* t;
  const Scale* scales;
  unsigned images, positions, c, d;
  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(images) * positions; }
  [[nodiscard]] __host__ __device__ unsigned width() const { return c > d ? c : d; }
};

/// Element j < width of a position is D_j, then come those of S.
template <class S, class T>
struct PairElement {
  Images<S, T> x;
  unsigned skip = 0;  // added to j
  __device__ float operator()(unsigned image, unsigned position, unsigned j) const {
    const std::size_t row = static_cast<std::size_t>(image) * x.positions + position;
    const Scale scale = x.scales[row];
    const bool sum = j + skip >= x.width();
    const unsigned k = sum ? j + skip - x.width() : j + skip;
    const float a = k < x.c ? to_float(x.s[row * x.c + k]) : 0.0F;
    const float b = k < x.d ? to_float(x.t[row * x.d + k]) : 0.0F;
    return sum ? (a + scale.ratio * b + scale.rest * b) * scale.inverse
               : (a - scale.ratio * b - scale.rest * b) * scale.inverse;
  }
};

/// The normalised vector of the student times a number per position: F_S / row norm.
template <class S, class T>
struct WeightedElement {
  Images<S, T> x;
  const double* weights;
  __device__ float operator()(unsigned image, unsigned position, unsigned j) const {
    const std::size_t row = static_cast<std::size_t>(image) * x.positions + position;
    return j < x.c ? to_float(x.s[row * x.c + j]) * x.scales[row].inverse * static_cast<float>(weights[row]) : 0.0F;
  }
};

/// Rows of [D S] times a matrix M whose halves are exchanged and halved are (A_S - A_T) times what M is the product of [D S]^T
/// with. `folded`: M has twice as many columns, whose halves are averaged first ([D S]^T F_S from [D S]^T [D S]).
struct Exchanged {
  static constexpr bool kAlongDepth = false;
  const double* m;
  unsigned width, columns;
  bool folded;
  double factor;
  __device__ float operator()(unsigned image, unsigned k, unsigned j) const {
    const unsigned row_length = folded ? 2 * width : columns;
    const double* row =
        m + (static_cast<std::size_t>(image) * 2 * width + (k < width ? k + width : k - width)) * row_length;
    const double v = folded ? (row[j] + row[width + j]) / 2 : row[j];
    return static_cast<float>(factor / 2 * v);
  }
};

template <class X>
__device__ inline double length_of(const X* x, unsigned c, unsigned lane, unsigned lanes) {
  double sum = 0;
  for (unsigned k = lane; k < c; k += lanes) {
    const auto v = static_cast<double>(to_float(x[k]));
    sum += v * v;
  }
  return sqrt(warp_all(sum, Add{}, lanes));
}

template <class S, class T>
__global__ void measure_kernel(Images<S, T> x, Scale* scales, unsigned rows, unsigned lanes, double epsilon,
                               bool detach_norm) {
  const PixelLane at(rows, lanes);
  const double norm = length_of(x.s + static_cast<std::size_t>(at.pixel) * x.c, x.c, at.lane, lanes);
  const double norm_t = length_of(x.t + static_cast<std::size_t>(at.pixel) * x.d, x.d, at.lane, lanes);
  if (!at.active || at.lane != 0) return;
  const double divisor = norm + epsilon;
  const double ratio = divisor / (norm_t + epsilon);
  const bool near = ratio > 0.5 && ratio < 1.5;
  const auto inverse = static_cast<float>(1 / divisor);
  scales[at.pixel] = {inverse, near ? 1.0F : static_cast<float>(ratio), near ? static_cast<float>(ratio - 1) : 0.0F,
                      norm == 0 ? 0.0F : inverse, norm == 0 || detach_norm ? 0.0F : static_cast<float>(divisor / norm)};
}

/// totals[image] = ||A_S - A_T||^2 = (<D^T D, S^T S> + tr (D^T S)^2) / 2; one block per image.
__global__ void squared_difference_kernel(const double* gram, unsigned width, double* totals) {
  __shared__ double scratch[32];
  const std::size_t size = 2 * width;
  const double* g = gram + blockIdx.x * size * size;
  const double* both = g + width;
  const double* sums = g + width * size + width;
  double total = 0;
  for (unsigned e = threadIdx.x; e < width * width; e += kBlock) {
    const std::size_t i = e / width;
    const std::size_t j = e % width;
    total += g[i * size + j] * sums[i * size + j] + both[i * size + j] * both[j * size + i];
  }
  total = block_all(total, Add{}, 0.0, scratch) / 2;
  if (threadIdx.x == 0) totals[blockIdx.x] = total < 0 ? 0 : total;
}

/// Row i of e = (A_S - A_T) [D S] gives the row's norm, ||row||^2 = (e_D . S_i + e_S . D_i) / 2, and its product with F_S,
/// (e_D + e_S) / 2, which is kept over the norm.
template <class S, class T>
__global__ void row_norms_kernel(PairElement<S, T> pairs, const float* e, unsigned rows, unsigned lanes, double* totals,
                                 double* weights, float* part) {
  __shared__ double scratch[32];
  const PixelLane at(rows, lanes);
  const Images<S, T>& x = pairs.x;
  const unsigned width = x.width();
  const unsigned image = at.pixel / x.positions;
  const unsigned position = at.pixel % x.positions;
  const float* row = e + static_cast<std::size_t>(at.pixel) * 2 * width;
  double squares = 0;
  for (unsigned j = at.lane; j < width; j += lanes) {
    squares += static_cast<double>(row[j]) * static_cast<double>(pairs(image, position, width + j));
    squares += static_cast<double>(row[width + j]) * static_cast<double>(pairs(image, position, j));
  }
  squares = warp_all(squares, Add{}, lanes);
  const double norm = squares <= 0 ? 0 : sqrt(squares / 2);
  const double weight = norm == 0 ? 0 : 1 / norm;
  if (at.active && at.lane == 0) weights[at.pixel] = weight;
  if (at.active && part != nullptr) {
    for (unsigned k = at.lane; k < x.c; k += lanes) {
      part[static_cast<std::size_t>(at.pixel) * x.c + k] = static_cast<float>(weight / 2) * (row[k] + row[width + k]);
    }
  }
  double total = at.active && at.lane == 0 ? norm : 0.0;
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

/// z = D S^T of images of few positions, A_S - A_T = (z + z^T) / 2: the norms of its rows, and what the gradient multiplies them by.
__global__ void few_norms_kernel(const double* z, unsigned positions, unsigned rows, bool rownorm, double* totals,
                                 double* weights) {
  __shared__ double scratch[32];
  const PixelLane at(rows, kWarp);
  const double* image = z + static_cast<std::size_t>(at.pixel / positions) * positions * positions;
  const std::size_t i = at.pixel % positions;
  double squares = 0;
  for (std::size_t j = at.lane; j < positions; j += kWarp) {
    const double v = (image[i * positions + j] + image[j * positions + i]) / 2;
    squares += v * v;
  }
  squares = warp_all(squares, Add{});
  const double norm = sqrt(squares);
  if (at.active && at.lane == 0) weights[at.pixel] = !rownorm ? 2 : norm == 0 ? 0 : 1 / norm;
  double total = !at.active || at.lane != 0 ? 0.0 : rownorm ? norm : squares;
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

/// Element (j, i) of the weighted differences (A_S - A_T)_ij (w_i + w_j), and of the student's normalised vectors.
struct FewDifferences {
  static constexpr bool kAlongDepth = true;
  const double* z;
  const double* weights;
  unsigned positions;
  __device__ float operator()(unsigned image, unsigned j, unsigned i) const {
    const std::size_t first_row = static_cast<std::size_t>(image) * positions;
    const double v = (z[(first_row + i) * positions + j] + z[(first_row + j) * positions + i]) / 2;
    return static_cast<float>(v * (weights[first_row + i] + weights[first_row + j]));
  }
};
template <class S, class T>
struct Normalised {
  static constexpr bool kAlongDepth = false;
  Images<S, T> x;
  __device__ float operator()(unsigned image, unsigned position, unsigned k) const {
    const std::size_t row = static_cast<std::size_t>(image) * x.positions + position;
    return to_float(x.s[row * x.c + k]) * x.scales[row].inverse;
  }
};

/// Gradient of every position's vector, given that of its normalised form, g + part: (g - f (g.f)) / ||s||, or without the part
/// along f.
template <class S, class T>
__global__ void store_kernel(Images<S, T> x, const float* g, unsigned stride, const float* part, float factor,
                             unsigned rows, unsigned lanes, S* gs) {
  const PixelLane at(rows, lanes);
  const std::size_t row = at.pixel;
  const Scale scale = x.scales[row];
  const auto slope = [&](unsigned k) {
    return factor * (g[row * stride + k] + (part == nullptr ? 0.0F : part[row * x.c + k]));
  };
  float along = 0;
  for (unsigned k = at.lane; k < x.c; k += lanes) along += slope(k) * to_float(x.s[row * x.c + k]);
  along = warp_all(along, Add{}, lanes) * scale.inverse * scale.inverse * scale.stretch;
  if (!at.active) return;
  for (unsigned k = at.lane; k < x.c; k += lanes) {
    gs[row * x.c + k] = from_float<S>(scale.slope * (slope(k) - along * to_float(x.s[row * x.c + k])));
  }
}

template <class S, class T>
void store(const Images<S, T>& x, const float* g, const float* part, double factor, S* gs) {
  const unsigned lanes = ops::lanes_per_pixel(x.c);
  launch(store_kernel<S, T>, ceil_div(x.rows() * lanes, kBlock), kBlock, x, g, x.c, part, factor, x.rows(), lanes, gs);
}

/// Blocks whose totals one pass over `rows` positions leaves.
unsigned total_count(std::int64_t rows, unsigned lanes) { return ceil_div(rows * lanes, kBlock); }

/// More positions than channels: value into totals, gradient (if gs is not null) times slope into gs.
template <class S, class T>
void many_positions(const Images<S, T>& x, const AffinityForm& form, double slope, unsigned lanes, double* totals,
                    S* gs) {
  const unsigned width = x.width();
  const PairElement<S, T> pairs{x};
  const Scratch gram(std::size_t{x.images} * 4 * width * width * sizeof(double));
  channel_products(pairs, gram.as<double>(), x.images, x.positions, 2 * std::int64_t{width});
  const OverChannels<PairElement<S, T>> rows{pairs};
  const auto multiply = [&](const Exchanged& matrix, unsigned columns, float* out) {
    product(rows, matrix, StoreMatrix<float>{out, x.positions, columns}, x.images, x.positions, columns,
            2 * std::int64_t{width});
  };
  const auto count = static_cast<std::size_t>(x.rows());
  const Scratch product_of_rows(count * (form.rownorm ? 2 * width : x.c) * sizeof(float));
  auto* g = product_of_rows.as<float>();
  if (!form.rownorm) {
    launch(squared_difference_kernel, x.images, kBlock, gram.as<double>(), width, totals);
    if (gs == nullptr) return;
    multiply({gram.as<double>(), width, x.c, true, 4.0}, x.c, g);
    store(x, g, nullptr, slope, gs);
    return;
  }
  multiply({gram.as<double>(), width, 2 * width, false, 1.0}, 2 * width, g);
  const Scratch weights(count * sizeof(double));
  const Scratch part(gs == nullptr ? 1 : count * x.c * sizeof(float));
  launch(row_norms_kernel<S, T>, total_count(x.rows(), lanes), kBlock, pairs, g, x.rows(), lanes, totals,
         weights.as<double>(), gs == nullptr ? nullptr : part.as<float>());
  if (gs == nullptr) return;
  const Scratch weighted(std::size_t{x.images} * 2 * width * x.c * sizeof(double));  // [D S]^T (F_S / norm)
  product(OverPositions<PairElement<S, T>>{pairs}, OverPositions<WeightedElement<S, T>>{{x, weights.as<double>()}},
          StoreMatrix<double>{weighted.as<double>(), 2 * width, x.c}, x.images, 2 * std::int64_t{width}, x.c,
          x.positions);
  multiply({weighted.as<double>(), width, x.c, false, 1.0}, x.c, g);
  store(x, g, part.as<float>(), slope, gs);
}

/// Fewer positions than channels.
template <class S, class T>
void few_positions(const Images<S, T>& x, const AffinityForm& form, double slope, double* totals, S* gs) {
  const std::int64_t m = x.positions;
  const Scratch z(static_cast<std::size_t>(x.images * m * m) * sizeof(double));
  const Scratch weights(static_cast<std::size_t>(x.rows()) * sizeof(double));
  product(OverChannels<PairElement<S, T>>{{x}}, OverChannels<PairElement<S, T>>{{x, x.width()}},
          StoreMatrix<double>{z.as<double>(), x.positions, x.positions}, x.images, m, m, x.width());
  launch(few_norms_kernel, total_count(x.rows(), kWarp), kBlock, z.as<double>(), x.positions, x.rows(), form.rownorm,
         totals, weights.as<double>());
  if (gs == nullptr) return;
  const Scratch g(static_cast<std::size_t>(x.rows()) * x.c * sizeof(float));
  product(FewDifferences{z.as<double>(), weights.as<double>(), x.positions}, Normalised<S, T>{x},
          StoreMatrix<float>{g.as<float>(), x.positions, x.c}, x.images, m, x.c, m);
  store(x, g.as<float>(), nullptr, slope, gs);
}

template <class S, class T>
void run(const TensorView& student, const TensorView& teacher, const TensorView& gstudent, const AffinityForm& form,
         double slope, double loss_factor, float* loss) {
  // Images are handled in groups whose intermediate rows stay below this.
  constexpr std::int64_t kMostBytes = std::int64_t{256} << 20U;
  const std::int64_t m = student.h() * student.w();
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const bool few = m < std::max(c, d);
  const unsigned lanes = few ? kWarp : ops::lanes_per_pixel(std::max(c, d));
  const std::int64_t group = std::clamp<std::int64_t>(kMostBytes / (8 * m * std::max(c, d)), 1, student.n());
  const std::int64_t groups = (student.n() + group - 1) / group;
  const bool per_row = few || form.rownorm;
  const std::int64_t each = per_row ? total_count(group * m, lanes) : group;
  const Scratch totals(static_cast<std::size_t>(groups * each) * sizeof(double));
  const Scratch scales(static_cast<std::size_t>(group * m) * sizeof(Scale));
  // A last group with fewer images leaves some totals out.
  check(cudaMemsetAsync(totals.as<void>(), 0, static_cast<std::size_t>(groups * each) * sizeof(double), stream()),
        "cudaMemsetAsync");
  for (std::int64_t k = 0; k < groups; ++k) {
    const std::int64_t done = k * group;
    const std::int64_t images = std::min(group, student.n() - done);
    const Images<S, T> x{student.ptr<const S>() + done * m * c,
                         teacher.ptr<const T>() + done * m * d,
                         scales.as<Scale>(),
                         static_cast<unsigned>(images),
                         static_cast<unsigned>(m),
                         static_cast<unsigned>(c),
                         static_cast<unsigned>(d)};
    launch(measure_kernel<S, T>, total_count(x.rows(), lanes), kBlock, x, scales.as<Scale>(), x.rows(), lanes,
           form.epsilon, form.detach_norm);
    S* gs = gstudent.defined() ? gstudent.ptr<S>() + done * m * c : nullptr;
    if (few) {
      few_positions(x, form, slope, totals.as<double>() + k * each, gs);
    } else {
      many_positions(x, form, slope, lanes, totals.as<double>() + k * each, gs);
    }
  }
  launch(finish_sum_kernel<float>, 1, kBlock, totals.as<double>(), groups * each, loss_factor, loss);
}

}  // namespace

void affinity_difference_cuda(const TensorView& student, const TensorView& teacher, const TensorView& gstudent,
                              const AffinityForm& form, double slope, double loss_factor, const TensorView& loss) {
  LIMBECK_CHECK(student.n() * student.h() * student.w() < (std::int64_t{1} << 26), current_op(),
                "maps of shape {} have too many positions", student.shape);
  visit_fast_dtype("affinity_difference", student.dtype, [&](auto s) {
    visit_fast_dtype("affinity_difference", teacher.dtype, [&](auto t) {
      run<decltype(s), decltype(t)>(student, teacher, gstudent, form, slope, loss_factor, loss.ptr<float>());
    });
  });
}

}  // namespace limbeck::distill
