// The affinity loss on the GPU. Two of its forms are differences of affinities (position_affinity_cuda.cu). The third, torchdistill's,
// needs three sums per channel: see ka_affinity_tdl_cpu.cpp for the algebra.
#include "core/cuda/columns.cuh"
#include "distill/ka_affinity_kernels.h"
#include "distill/position_affinity.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// The numbers of a channel of an image.
struct Channel {
  double norm, divisor;
  float ratio;          // divisor of the student over that of the teacher
  float of_difference;  // the gradient is of_difference (s - ratio t) + of_student s
  float of_student;
};

template <class S, class T>
struct Maps {
  const S* s;
  const T* t;
  unsigned positions, c;
  __device__ float student(unsigned image, unsigned row, unsigned k) const {
    return to_float(s[(static_cast<std::size_t>(image) * positions + row) * c + k]);
  }
  __device__ float teacher(unsigned image, unsigned row, unsigned k) const {
    return to_float(t[(static_cast<std::size_t>(image) * positions + row) * c + k]);
  }
};

template <class S, class T>
struct Lengths {
  struct Acc {
    double s, t;
  };
  Maps<S, T> maps;
  Channel* channels;
  __device__ void start(Acc& a) const { a = {0, 0}; }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned k) const {
    const auto s = static_cast<double>(maps.student(image, row, k));
    const auto t = static_cast<double>(maps.teacher(image, row, k));
    a.s += s * s;
    a.t += t * t;
  }
  __device__ void merge(Acc& a, const Acc& b) const { a = {a.s + b.s, a.t + b.t}; }
  __device__ void finish(const Acc& a, unsigned image, unsigned k) const {
    const double norm = sqrt(a.s);
    const double divisor = norm + kAffinityEpsilon;
    channels[image * maps.c + k] = {norm, divisor, static_cast<float>(divisor / (sqrt(a.t) + kAffinityEpsilon)), 0, 0};
  }
};

/// Sums of products of d = s - ratio t and s + ratio t.
template <class S, class T>
struct Products {
  struct Acc {
    double dd, ss, ds;
  };
  Maps<S, T> maps;
  Channel* channels;
  double slope;
  double* loss;  // [image][channel]
  __device__ void start(Acc& a) const { a = {0, 0, 0}; }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned k) const {
    const float s = maps.student(image, row, k);
    const float t = channels[image * maps.c + k].ratio * maps.teacher(image, row, k);
    const auto d = static_cast<double>(s - t);
    const auto sum = static_cast<double>(s + t);
    a.dd += d * d;
    a.ss += sum * sum;
    a.ds += d * sum;
  }
  __device__ void merge(Acc& a, const Acc& b) const { a = {a.dd + b.dd, a.ss + b.ss, a.ds + b.ds}; }
  __device__ void finish(const Acc& a, unsigned image, unsigned k) const {
    Channel& to = channels[image * maps.c + k];
    const double scale = 1 / (to.divisor * to.divisor);
    const double dd = a.dd * scale;
    const double ss = a.ss * scale;
    const double ds = a.ds * scale;
    const double distance = sqrt((dd * ss + ds * ds) / 2);
    loss[image * maps.c + k] = distance;
    const double sa = (ds + ss) / 2;
    const double da = (dd + ds) / 2;
    const double along = to.norm == 0 ? 0 : 2 * sa * da * to.divisor / to.norm;
    const double factor = distance == 0 || to.norm == 0 ? 0 : slope / (distance * to.divisor * to.divisor);
    to.of_difference = static_cast<float>(factor * (sa - da));
    to.of_student = static_cast<float>(factor * (2 * da - along));
  }
};

template <class S, class T>
__global__ void gradient_kernel(Maps<S, T> maps, const Channel* channels, unsigned count, S* gs) {
  for (unsigned i = first(); i < count; i += step()) {
    const unsigned k = i % maps.c;
    const Channel channel = channels[i / maps.c / maps.positions * maps.c + k];
    const float s = to_float(maps.s[i]);
    const float t = channel.ratio * to_float(maps.t[i]);
    gs[i] = from_float<S>(channel.of_difference * (s - t) + channel.of_student * s);
  }
}

void tdl(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent) {
  const std::int64_t n = student.n();
  const std::int64_t c = student.c();
  const std::int64_t positions = student.h() * student.w();
  LIMBECK_CHECK(student.numel() < (std::int64_t{1} << 31), "ka_affinity", "maps of shape {} have too many elements",
                student.shape);
  const double factor = 1 / (static_cast<double>(n) * static_cast<double>(positions));
  const Scratch channels(static_cast<std::size_t>(n * c) * sizeof(Channel));
  const Scratch parts(static_cast<std::size_t>(n * c) * sizeof(double));
  visit_fast_dtype("ka_affinity", student.dtype, [&](auto s_tag) {
    visit_fast_dtype("ka_affinity", teacher.dtype, [&](auto t_tag) {
      using S = decltype(s_tag);
      using T = decltype(t_tag);
      const Maps<S, T> maps{student.ptr<const S>(), teacher.ptr<const T>(), static_cast<unsigned>(positions),
                            static_cast<unsigned>(c)};
      reduce_columns(Lengths<S, T>{maps, channels.as<Channel>()}, n, positions, c);
      reduce_columns(Products<S, T>{maps, channels.as<Channel>(), factor, parts.as<double>()}, n, positions, c);
      if (!gstudent.defined()) return;
      launch(gradient_kernel<S, T>, grid_for(student.numel()), kBlock, maps, channels.as<Channel>(), student.numel(),
             gstudent.ptr<S>());
    });
  });
  launch(finish_sum_kernel<float>, 1, kBlock, parts.as<double>(), n * c, factor, loss.ptr<float>());
}

}  // namespace

void ka_affinity_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, const KaAffinityOptions& options) {
  if (options.reduce == KaAffinityReduce::kTdl) return tdl(student, teacher, loss, gstudent);
  const bool rownorm = options.reduce == KaAffinityReduce::kRowNorm;
  const auto m = static_cast<double>(student.h() * student.w());
  const double factor = 1 / (static_cast<double>(student.n()) * m * (rownorm ? 1.0 : m));
  affinity_difference_cuda(student, teacher, gstudent, {.epsilon = kAffinityEpsilon, .rownorm = rownorm}, factor,
                           factor, loss);
}

}  // namespace limbeck::distill
