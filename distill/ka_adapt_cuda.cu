// The adaptation loss on the GPU. Positions: a few lanes of a warp do everything for one vector. Images: vectors of many numbers, hence
// passes over all of them (norms, differences, gradient; two more for the largest magnitudes where an exponent is neither 1 nor 2), each
// with a number of blocks per image. The numbers in between stay on the device. See Note [unscaled difference] in ka_adapt_cpu.cpp.
#include "core/cuda/columns.cuh"
#include "distill/ka_adapt_kernels.h"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::PixelLane;

/// Powers of one exponent. Those other than 1 and 2 work on numbers divided by the largest magnitude, so that none overflows.
struct Powers {
  float e;
  __host__ __device__ bool scaled() const { return e != 1.0F && e != 2.0F; }
  /// |scale x|^e
  __device__ float whole(float x, float scale) const {
    if (e == 1.0F) return fabsf(x);
    if (e == 2.0F) return x * x;
    return powf(fabsf(x) * scale, e);
  }
  /// sign(x) |scale x|^(e-1)
  __device__ float less_one(float x, float scale) const {
    if (e == 1.0F) return x < 0 ? -1.0F : x > 0 ? 1.0F : x;
    if (e == 2.0F) return x;
    return copysignf(powf(fabsf(x) * scale, e - 1.0F), x);
  }
  /// The norm, given the sum of whole().
  __device__ double norm(double sum, float scale) const {
    if (e == 1.0F) return sum;
    if (e == 2.0F) return sqrt(sum);
    return ::pow(sum, 1 / static_cast<double>(e)) / static_cast<double>(scale);
  }
  /// What less_one() is multiplied by to give the derivative of the norm; 0 for a norm of 0.
  __device__ double slope(double norm, float scale) const {
    if (norm == 0) return 0;
    if (e == 1.0F) return 1;
    return ::pow(norm * (scaled() ? static_cast<double>(scale) : 1.0), 1 - static_cast<double>(e));
  }
};

__device__ inline float inverse_of(float largest) { return largest == 0 ? 1.0F : 1 / largest; }

/// The numbers of one vector.
struct Numbers {
  float scale_s, scale_t, scale_d;  // 1 / largest magnitudes
  float ratio;                      // divisor of the student over that of the teacher
  double norm, divisor;
  float of_difference, of_norm;  // factors of the two parts of the gradient

  __device__ void set_norms(const Powers& q, double sum_s, double sum_t) {
    norm = q.norm(sum_s, scale_s);
    divisor = norm + kKaEpsilon;
    ratio = static_cast<float>(divisor / (q.norm(sum_t, scale_t) + kKaEpsilon));
  }
  /// Returns the distance. `sum`: of whole() of the differences; `along`: of their less_one() times s.
  __device__ double set_slopes(const Powers& p, const Powers& q, double sum, double along, double factor) {
    const double distance = p.norm(sum, scale_d);
    const bool flat = norm == 0 || distance == 0;
    const double slope = p.slope(distance, scale_d) * factor / divisor;
    of_difference = flat ? 0.0F : static_cast<float>(slope);
    of_norm = flat ? 0.0F : static_cast<float>(slope * along / divisor * q.slope(norm, scale_s));
    return distance / divisor;
  }
  __device__ float gradient(const Powers& p, const Powers& q, float s, float t) const {
    return of_difference * p.less_one(s - ratio * t, scale_d) - of_norm * q.less_one(s, scale_s);
  }
};

// --- positions --------------------------------------------------------------------------------------------------------

template <class S, class T>
__global__ void positions_kernel(const S* student, const T* teacher, Powers p, Powers q, double factor, unsigned count,
                                 unsigned c, unsigned lanes, unsigned turns, S* gs, double* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned turn = 0; turn < turns; ++turn) {
    const PixelLane at(count, lanes, turn);
    const S* s = student + static_cast<std::size_t>(at.pixel) * c;
    const T* t = teacher + static_cast<std::size_t>(at.pixel) * c;
    const auto sum = [&](const auto& value) {
      double v = 0;
      for (unsigned k = at.lane; k < c; k += lanes) v += static_cast<double>(value(to_float(s[k]), to_float(t[k])));
      return warp_all(v, Add{}, lanes);
    };
    const auto largest = [&](const auto& value) {
      float v = 0;
      for (unsigned k = at.lane; k < c; k += lanes) v = Max{}(v, fabsf(value(to_float(s[k]), to_float(t[k]))));
      return warp_all(v, Max{}, lanes);
    };
    Numbers v{1, 1, 1, 1, 0, 0, 0, 0};
    if (q.scaled()) {
      v.scale_s = inverse_of(largest([](float a, float) { return a; }));
      v.scale_t = inverse_of(largest([](float, float b) { return b; }));
    }
    const double sum_s = sum([&](float a, float) { return q.whole(a, v.scale_s); });
    const double sum_t = sum([&](float, float b) { return q.whole(b, v.scale_t); });
    v.set_norms(q, sum_s, sum_t);
    if (p.scaled()) v.scale_d = inverse_of(largest([&](float a, float b) { return a - v.ratio * b; }));
    const double powers = sum([&](float a, float b) { return p.whole(a - v.ratio * b, v.scale_d); });
    const double along = sum([&](float a, float b) { return p.less_one(a - v.ratio * b, v.scale_d) * a; });
    const double distance = v.set_slopes(p, q, powers, along, factor);
    if (at.active && gs != nullptr) {
      for (unsigned k = at.lane; k < c; k += lanes) {
        gs[static_cast<std::size_t>(at.pixel) * c + k] =
            from_float<S>(v.gradient(p, q, to_float(s[k]), to_float(t[k])));
      }
    }
    if (at.active && at.lane == 0) total += distance;
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// --- images -----------------------------------------------------------------------------------------------------------
// A pass is a functor: two numbers per element, joined by Join from 0 on; finish() gets them once per image.

template <class S, class T>
struct Vectors {
  const S* s;
  const T* t;
  Numbers* numbers;  // [image]
  Powers p, q;
  double factor;
  double* distances;  // [image]
};

template <class S, class T>
struct LargestPass : Vectors<S, T> {
  using Join = Max;
  __device__ void add(unsigned, float s, float t, double (&v)[2]) const {
    v[0] = Max{}(v[0], static_cast<double>(fabsf(s)));
    v[1] = Max{}(v[1], static_cast<double>(fabsf(t)));
  }
  __device__ void finish(unsigned image, const double (&v)[2]) const {
    this->numbers[image].scale_s = inverse_of(static_cast<float>(v[0]));
    this->numbers[image].scale_t = inverse_of(static_cast<float>(v[1]));
  }
};

template <class S, class T>
struct NormsPass : Vectors<S, T> {
  using Join = Add;
  __device__ void add(unsigned image, float s, float t, double (&v)[2]) const {
    const Numbers& n = this->numbers[image];
    v[0] += static_cast<double>(this->q.whole(s, n.scale_s));
    v[1] += static_cast<double>(this->q.whole(t, n.scale_t));
  }
  __device__ void finish(unsigned image, const double (&v)[2]) const {
    this->numbers[image].set_norms(this->q, v[0], v[1]);
  }
};

template <class S, class T>
struct LargestDifferencePass : Vectors<S, T> {
  using Join = Max;
  __device__ void add(unsigned image, float s, float t, double (&v)[2]) const {
    v[0] = Max{}(v[0], static_cast<double>(fabsf(s - this->numbers[image].ratio * t)));
  }
  __device__ void finish(unsigned image, const double (&v)[2]) const {
    this->numbers[image].scale_d = inverse_of(static_cast<float>(v[0]));
  }
};

template <class S, class T>
struct DifferencesPass : Vectors<S, T> {
  using Join = Add;
  __device__ void add(unsigned image, float s, float t, double (&v)[2]) const {
    const Numbers& n = this->numbers[image];
    const float d = s - n.ratio * t;
    v[0] += static_cast<double>(this->p.whole(d, n.scale_d));
    v[1] += static_cast<double>(this->p.less_one(d, n.scale_d) * s);
  }
  __device__ void finish(unsigned image, const double (&v)[2]) const {
    this->distances[image] = this->numbers[image].set_slopes(this->p, this->q, v[0], v[1], this->factor);
  }
};

__global__ void start_kernel(Numbers* numbers, unsigned images) {
  for (unsigned i = first(); i < images; i += step()) numbers[i] = {1, 1, 1, 1, 0, 0, 0, 0};
}

template <class Pass>
__global__ void pass_kernel(Pass pass, unsigned length, double* partial) {
  __shared__ double scratch[32];
  const unsigned image = blockIdx.y;
  double v[2] = {0, 0};
  for (unsigned i = first(); i < length; i += step()) {
    const std::size_t at = static_cast<std::size_t>(image) * length + i;
    pass.add(image, to_float(pass.s[at]), to_float(pass.t[at]), v);
  }
  for (unsigned k = 0; k < 2; ++k) {
    const double all = block_all(v[k], typename Pass::Join{}, 0.0, scratch);
    if (threadIdx.x == 0) partial[(static_cast<std::size_t>(image) * gridDim.x + blockIdx.x) * 2 + k] = all;
  }
}

template <class Pass>
__global__ void finish_pass_kernel(Pass pass, const double* partial, unsigned blocks) {
  __shared__ double scratch[32];
  double v[2] = {0, 0};
  for (unsigned k = 0; k < 2; ++k) {
    for (unsigned b = threadIdx.x; b < blocks; b += blockDim.x) {
      v[k] = typename Pass::Join{}(v[k], partial[(static_cast<std::size_t>(blockIdx.x) * blocks + b) * 2 + k]);
    }
    v[k] = block_all(v[k], typename Pass::Join{}, 0.0, scratch);
  }
  if (threadIdx.x == 0) pass.finish(blockIdx.x, v);
}

template <class S, class T>
__global__ void image_gradient_kernel(Vectors<S, T> vectors, unsigned length, S* gs) {
  const unsigned image = blockIdx.y;
  const Numbers n = vectors.numbers[image];
  for (unsigned i = first(); i < length; i += step()) {
    const std::size_t at = static_cast<std::size_t>(image) * length + i;
    gs[at] = from_float<S>(n.gradient(vectors.p, vectors.q, to_float(vectors.s[at]), to_float(vectors.t[at])));
  }
}

template <class S, class T>
void images_loss(const Vectors<S, T>& vectors, std::int64_t images, std::int64_t length, S* gs) {
  const auto count = static_cast<unsigned>(images);
  const unsigned blocks = std::clamp(ceil_div(length, 8 * kBlock), 1U, std::max(1056 / count, 1U));
  const dim3 grid(blocks, count);
  const Scratch partial(std::size_t{2} * blocks * count * sizeof(double));
  const auto run = [&]<class Pass>(const Pass& pass) {
    launch(pass_kernel<Pass>, grid, kBlock, pass, length, partial.as<double>());
    launch(finish_pass_kernel<Pass>, count, kBlock, pass, partial.as<double>(), blocks);
  };
  launch(start_kernel, grid_for(images), kBlock, vectors.numbers, images);
  if (vectors.q.scaled()) run(LargestPass<S, T>{vectors});
  run(NormsPass<S, T>{vectors});
  if (vectors.p.scaled()) run(LargestDifferencePass<S, T>{vectors});
  run(DifferencesPass<S, T>{vectors});
  if (gs != nullptr) launch(image_gradient_kernel<S, T>, grid, kBlock, vectors, length, gs);
}

}  // namespace

void ka_adapt_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent, const KaAdaptOptions& options) {
  const std::int64_t count = ka_vector_count(student, options.scope);
  const std::int64_t length = student.numel() / count;
  LIMBECK_CHECK(count < (std::int64_t{1} << 26) && length < (std::int64_t{1} << 31), "ka_adapt",
                "maps of shape {} have too many elements", student.shape);
  const bool image = options.scope == KaScope::kImage;
  const double factor = ka_adapt_factor(student, options);
  const Powers p{static_cast<float>(options.p)};
  const Powers q{static_cast<float>(options.q)};
  const unsigned lanes = ops::lanes_per_pixel(length);
  const ops::PixelTurns turns(count, lanes);
  const unsigned blocks = image ? static_cast<unsigned>(count) : turns.blocks;
  const Scratch distances(blocks * sizeof(double));
  const Scratch numbers(image ? static_cast<std::size_t>(count) * sizeof(Numbers) : 1);
  visit_fast_dtype("ka_adapt", student.dtype, [&](auto s_tag) {
    visit_fast_dtype("ka_adapt", teacher.dtype, [&](auto t_tag) {
      using S = decltype(s_tag);
      using T = decltype(t_tag);
      const auto* s = student.ptr<const S>();
      const auto* t = teacher.ptr<const T>();
      if (image) {
        images_loss(Vectors<S, T>{s, t, numbers.as<Numbers>(), p, q, factor, distances.as<double>()}, count, length,
                    gstudent.ptr<S>());
      } else {
        launch(positions_kernel<S, T>, blocks, kBlock, s, t, p, q, factor, count, length, lanes, turns.turns,
               gstudent.ptr<S>(), distances.as<double>());
      }
    });
  });
  launch(finish_sum_kernel<float>, 1, kBlock, distances.as<double>(), blocks, factor, loss.ptr<float>());
}

}  // namespace limbeck::distill
