// The intra-class variation loss on the GPU. The pixels of every image are first sorted by class, so that the sums of a class run over a
// list in a fixed order, without atomics. Then as on the CPU: centres, cosines with them, gradients of the centres, gradient.
#include "core/cuda.h"
#include "core/cuda/columns.cuh"
#include "distill/ifvd_kernels.h"
#include "ops/labels.cuh"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::LabelReader;
using ops::PixelLane;

constexpr unsigned kClasses = 256;
static_assert(kClasses == kBlock, "sort_kernel has one thread per class");

/// The class of every pixel, or one of these.
constexpr int kIgnored = -1;
constexpr int kOutside = -2;  // a label that is no class: the loss becomes NaN, as in cross entropy on the device

/// Pixels of every image in the order of their classes: those of class k are order[begin[k]] to order[begin[k + 1]].
struct Sorted {
  int* classes;     // [n][pixels]
  unsigned* order;  // [n][pixels]
  unsigned* begin;  // [n][kClasses + 1]
  unsigned pixels;

  __device__ unsigned first_of(unsigned image, unsigned k) const { return begin[image * (kClasses + 1) + k]; }
  __device__ unsigned count(unsigned image, unsigned k) const { return first_of(image, k + 1) - first_of(image, k); }
};

/// One block per image, one thread per class: each looks at all labels, twice.
__global__ void sort_kernel(LabelReader labels, Sorted out) {
  __shared__ int tile[kClasses];
  __shared__ unsigned counts[kClasses];
  const unsigned image = blockIdx.x;
  const std::size_t start = static_cast<std::size_t>(image) * out.pixels;
  const auto mine = static_cast<int>(threadIdx.x);
  const auto visit = [&](const auto& body) {
    for (unsigned p0 = 0; p0 < out.pixels; p0 += kClasses) {
      const unsigned p = p0 + threadIdx.x;
      const long long y = p < out.pixels ? labels.at(start + p) : labels.ignore;
      tile[threadIdx.x] = y == labels.ignore ? kIgnored : y < 0 || y >= kClasses ? kOutside : static_cast<int>(y);
      if (p < out.pixels) out.classes[start + p] = tile[threadIdx.x];
      __syncthreads();
      for (unsigned k = 0; k < kClasses; ++k) {
        if (tile[k] == mine) body(p0 + k);
      }
      __syncthreads();
    }
  };
  unsigned count = 0;
  visit([&](unsigned) { ++count; });
  counts[threadIdx.x] = count;
  __syncthreads();
  unsigned at = 0;
  for (unsigned k = 0; k < threadIdx.x; ++k) at += counts[k];
  out.begin[image * (kClasses + 1) + threadIdx.x] = at;
  if (threadIdx.x == kClasses - 1) out.begin[image * (kClasses + 1) + kClasses] = at + count;
  visit([&](unsigned p) { out.order[start + at++] = p; });
}

/// sums[image][class][channel] = sum over the pixels of the class of weight x. A block holds 32 channels of one class; classes
/// without pixels are left out.
template <class T>
__global__ void class_sums_kernel(const T* x, Sorted sorted, const double* weights, unsigned c, double* sums) {
  __shared__ double shared[kBlock];
  const unsigned k = blockIdx.y;
  const unsigned image = blockIdx.z;
  const unsigned count = sorted.count(image, k);
  if (count == 0) return;
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned channel = blockIdx.x * kWarp + lane;
  const std::size_t start = static_cast<std::size_t>(image) * sorted.pixels;
  const unsigned* list = sorted.order + start + sorted.first_of(image, k);
  double sum = 0;
  if (channel < c) {
    for (unsigned i = threadIdx.x / kWarp; i < count; i += kBlock / kWarp) {
      const std::size_t pixel = start + list[i];
      const auto v = static_cast<double>(to_float(x[pixel * c + channel]));
      sum += weights == nullptr ? v : weights[pixel] * v;
    }
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarp || channel >= c) return;
  for (unsigned r = 1; r < kBlock / kWarp; ++r) sum += shared[r * kWarp + lane];
  sums[(static_cast<std::size_t>(image) * kClasses + k) * c + channel] = sum;
}

/// The centres of the classes of one map as unit vectors, and their lengths.
struct Centres {
  float* unit;   // [n][kClasses][c]
  double* norm;  // [n][kClasses]
};

/// One warp per class.
__global__ void centres_kernel(const double* sums, Sorted sorted, unsigned c, unsigned rows, Centres out) {
  const PixelLane at(rows, kWarp);
  const unsigned count = sorted.count(at.pixel / kClasses, at.pixel % kClasses);
  const double divisor = static_cast<double>(count) + kIfvdCountEpsilon;
  const double* row = sums + static_cast<std::size_t>(at.pixel) * c;
  double squares = 0;
  for (unsigned j = at.lane; j < c && count > 0; j += kWarp) squares += row[j] / divisor * (row[j] / divisor);
  const double norm = sqrt(warp_all(squares, Add{}));
  if (!at.active || count == 0) return;
  if (at.lane == 0) out.norm[at.pixel] = norm;
  const double length = norm < kIfvdLeastNorm ? kIfvdLeastNorm : norm;
  for (unsigned j = at.lane; j < c; j += kWarp)
    out.unit[static_cast<std::size_t>(at.pixel) * c + j] = static_cast<float>(row[j] / divisor / length);
}

/// Length of a pixel's feature and its cosine with the centre of its class.
struct Cosine {
  double norm, cosine;
};

template <class T>
__device__ inline Cosine cosine_of(const T* f, const float* unit, unsigned c, unsigned lane, unsigned lanes) {
  const double norm =
      sqrt(static_cast<double>(ops::row_sum(f, c, lane, lanes, [](float v, unsigned) { return v * v; })));
  const float dot = ops::row_sum(f, c, lane, lanes, [=](float v, unsigned k) { return v * unit[k]; });
  return {norm, static_cast<double>(dot) / (norm < kIfvdLeastNorm ? kIfvdLeastNorm : norm)};
}

/// What the gradient needs of a pixel.
struct Pixel {
  double norm;    // of the student's feature, at least kIfvdLeastNorm
  double cosine;  // 0 where the norm was raised: it is a constant then
  double slope;
};

template <class S, class T>
__global__ void cosines_kernel(const S* student, const T* teacher, Sorted sorted, Centres centres_s, Centres centres_t,
                               unsigned c, unsigned d, double factor, unsigned rows, unsigned lanes, Pixel* pixels,
                               double* weights, double* along, double* partial) {
  __shared__ double scratch[32];
  const PixelLane at(rows, lanes);
  const int k = sorted.classes[at.pixel];
  const std::size_t pixel = at.pixel;
  const unsigned image = at.pixel / sorted.pixels;
  // All lanes meet in the sums: pixels without a class read the first centre that there is room for and forget the result.
  const std::size_t centre = static_cast<std::size_t>(image) * kClasses + static_cast<unsigned>(k < 0 ? 0 : k);
  const Cosine s = cosine_of(student + pixel * c, centres_s.unit + centre * c, c, at.lane, lanes);
  const Cosine t = cosine_of(teacher + pixel * d, centres_t.unit + centre * d, d, at.lane, lanes);
  const double difference = k >= 0 ? s.cosine - t.cosine : k == kIgnored ? 0.0 : static_cast<double>(NAN);
  if (at.active && at.lane == 0) {
    const bool raised = s.norm <= kIfvdLeastNorm;
    const double norm = raised ? kIfvdLeastNorm : s.norm;
    const double slope = 2 * factor * difference;
    pixels[pixel] = {norm, k < 0 || raised ? 0.0 : s.cosine, slope};
    weights[pixel] = slope / norm;
    along[pixel] = k < 0 ? 0.0 : slope * s.cosine;
  }
  double total = at.active && at.lane == 0 ? difference * difference : 0.0;
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// share = what every pixel of a class gets through its centre: (sums - centre (slope . cosine)) / (length count). One warp per class.
__global__ void shares_kernel(const double* sums, Sorted sorted, Centres centres, const double* along, unsigned c,
                              unsigned rows, float* share) {
  const PixelLane at(rows, kWarp);
  const unsigned image = at.pixel / kClasses;
  const unsigned k = at.pixel % kClasses;
  const unsigned count = sorted.count(image, k);
  const std::size_t start = static_cast<std::size_t>(image) * sorted.pixels;
  const unsigned* list = sorted.order + start + sorted.first_of(image, k);
  double off = 0;
  for (unsigned i = at.lane; i < count; i += kWarp) off += along[start + list[i]];
  off = warp_all(off, Add{});
  if (!at.active || count == 0) return;
  const double norm = centres.norm[at.pixel];
  const double divisor =
      (norm < kIfvdLeastNorm ? kIfvdLeastNorm : norm) * (static_cast<double>(count) + kIfvdCountEpsilon);
  if (norm <= kIfvdLeastNorm) off = 0;
  for (unsigned j = at.lane; j < c; j += kWarp) {
    const std::size_t e = static_cast<std::size_t>(at.pixel) * c + j;
    share[e] = static_cast<float>((sums[e] - off * static_cast<double>(centres.unit[e])) / divisor);
  }
}

template <class S>
__global__ void gradient_kernel(const S* student, Sorted sorted, Centres centres, const float* share,
                                const Pixel* pixels, unsigned c, unsigned count, S* gs) {
  for (std::size_t i = first(); i < std::size_t{count} * c; i += step()) {
    const std::size_t pixel = i / c;
    const int k = sorted.classes[pixel];
    const Pixel p = pixels[pixel];
    if (k < 0) {
      gs[i] = from_float<S>(static_cast<float>(p.slope));  // 0, or NaN
      continue;
    }
    const std::size_t e = (pixel / sorted.pixels * kClasses + static_cast<unsigned>(k)) * c + i % c;
    const auto a = static_cast<float>(p.slope / p.norm);
    const auto b = static_cast<float>(-p.slope * p.cosine / (p.norm * p.norm));
    gs[i] = from_float<S>(a * centres.unit[e] + b * to_float(student[i]) + share[e]);
  }
}

/// With LIMBECK_SYNC=1 a label that is no class is named, as on the CPU.
void check_labels(const TensorView& labels, const IfvdOptions& options) {
  Tensor host = Tensor::empty(labels.shape, labels.dtype);
  copy_to_host(current_device(), host.view().data, labels.data,
               static_cast<std::size_t>(labels.numel()) * size_of(labels.dtype));
  for (std::int64_t n = 0; n < labels.shape[0]; ++n)
    static_cast<void>(ClassSlots(host.view(), n, options.ignore_index));
}

}  // namespace

void ifvd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
               const TensorView& gstudent, const IfvdOptions& options) {
  if (synchronous()) check_labels(labels, options);
  const std::int64_t n = student.n();
  const std::int64_t c = student.c();
  const std::int64_t d = teacher.c();
  const std::int64_t rows = ops::pixel_count(student);
  LIMBECK_CHECK(rows < (std::int64_t{1} << 26), "ifvd", "{} pixels, expected at most 2^26", rows);
  const std::int64_t classes = n * kClasses;
  const auto count = static_cast<std::size_t>(rows);
  const Scratch integers(2 * count * sizeof(unsigned) + static_cast<std::size_t>(classes + n) * sizeof(unsigned));
  const Sorted sorted{integers.as<int>(), integers.as<unsigned>() + rows, integers.as<unsigned>() + 2 * rows,
                      static_cast<unsigned>(student.h() * student.w())};
  launch(sort_kernel, static_cast<unsigned>(n), kBlock, LabelReader{labels.data, labels.dtype, options.ignore_index},
         sorted);

  const Scratch sums(static_cast<std::size_t>(classes * std::max(c, d)) * sizeof(double));
  const Scratch norms(static_cast<std::size_t>(2 * classes) * sizeof(double));
  const Scratch units(static_cast<std::size_t>(classes * (2 * c + d)) * sizeof(float));
  const Centres of_student{units.as<float>(), norms.as<double>()};
  const Centres of_teacher{of_student.unit + classes * c, of_student.norm + classes};
  float* share = of_teacher.unit + classes * d;
  const auto class_sums = [&](const TensorView& x, const double* weights) {
    visit_fast_dtype("ifvd", x.dtype, [&](auto tag) {
      using T = decltype(tag);
      launch(class_sums_kernel<T>, dim3(ceil_div(x.c(), kWarp), kClasses, static_cast<unsigned>(n)), kBlock,
             x.ptr<const T>(), sorted, weights, x.c(), sums.as<double>());
    });
  };
  const auto centres = [&](const TensorView& x, const Centres& out) {
    class_sums(x, nullptr);
    launch(centres_kernel, ceil_div(classes * kWarp, kBlock), kBlock, sums.as<double>(), sorted, x.c(), classes, out);
  };
  centres(student, of_student);
  centres(teacher, of_teacher);

  const double factor = 1 / static_cast<double>(rows);
  const unsigned lanes = ops::lanes_per_pixel(std::max(c, d));
  const unsigned blocks = ceil_div(rows * lanes, kBlock);
  const Scratch pixels(count * sizeof(Pixel));
  const Scratch doubles((2 * count + blocks) * sizeof(double));
  auto* weights = doubles.as<double>();
  double* along = weights + rows;
  double* partial = along + rows;
  visit_fast_dtype("ifvd", student.dtype, [&](auto s_tag) {
    using S = decltype(s_tag);
    visit_fast_dtype("ifvd", teacher.dtype, [&](auto t_tag) {
      using T = decltype(t_tag);
      launch(cosines_kernel<S, T>, blocks, kBlock, student.ptr<const S>(), teacher.ptr<const T>(), sorted, of_student,
             of_teacher, c, d, factor, rows, lanes, pixels.as<Pixel>(), weights, along, partial);
    });
    launch(finish_sum_kernel<float>, 1, kBlock, partial, blocks, factor, loss.ptr<float>());
    if (!gstudent.defined()) return;
    class_sums(student, weights);
    launch(shares_kernel, ceil_div(classes * kWarp, kBlock), kBlock, sums.as<double>(), sorted, of_student, along, c,
           classes, share);
    launch(gradient_kernel<S>, grid_for(student.numel()), kBlock, student.ptr<const S>(), sorted, of_student, share,
           pixels.as<Pixel>(), c, rows, gstudent.ptr<S>());
  });
}

}  // namespace limbeck::distill
