// Cross entropy on the GPU: a census of the labels, then one pass over the logits that gives loss and gradient. Nothing is
// read back: the normaliser stays on the device.
//
// Note [labels on the device]
//   A label outside of the classes cannot become an exception without waiting for the device. The loss and the gradient of
//   that pixel become NaN, which stops the training; with LIMBECK_SYNC=1 the call waits and names the pixel.
#include "core/cuda.h"
#include "core/cuda/columns.cuh"
#include "ops/cross_entropy_kernels.h"
#include "ops/labels.cuh"
#include "ops/pixel_rows.cuh"

namespace limbeck::ops {
namespace {

using namespace cuda;

struct Labels : LabelReader {
  unsigned classes;
  __device__ bool outside(long long y) const { return y != ignore && (y < 0 || y >= classes); }
};

struct Census {
  double weight;            // of the labels that count
  long long first_outside;  // pixel with a label outside of the classes; -1: none
};

__device__ inline Census join(Census a, Census b) {
  a.weight += b.weight;
  if (a.first_outside < 0 || (b.first_outside >= 0 && b.first_outside < a.first_outside))
    a.first_outside = b.first_outside;
  return a;
}

/// The census of the block's threads; valid in thread 0.
__device__ inline Census block_census(Census c) {
  __shared__ double weight[32];
  __shared__ long long outside[32];
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    const Census other{__shfl_xor_sync(kFull, c.weight, static_cast<int>(distance)),
                       __shfl_xor_sync(kFull, c.first_outside, static_cast<int>(distance))};
    c = join(c, other);
  }
  if (threadIdx.x % kWarp == 0) {
    weight[threadIdx.x / kWarp] = c.weight;
    outside[threadIdx.x / kWarp] = c.first_outside;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned w = 1; w < blockDim.x / kWarp; ++w) c = join(c, Census{weight[w], outside[w]});
  }
  return c;
}

__global__ void census_kernel(Labels labels, const float* weights, unsigned pixels, Census* partial) {
  Census c{0, -1};
  for (unsigned i = first(); i < pixels; i += step()) {
    const long long y = labels.at(i);
    if (labels.outside(y)) {
      c = join(c, Census{0, static_cast<long long>(i)});
    } else if (y != labels.ignore) {
      c.weight += weights == nullptr ? 1.0 : static_cast<double>(weights[y]);
    }
  }
  c = block_census(c);
  if (threadIdx.x == 0) partial[blockIdx.x] = c;
}

__global__ void finish_census_kernel(const Census* partial, unsigned count, Census* out) {
  Census c{0, -1};
  for (unsigned i = threadIdx.x; i < count; i += kBlock) c = join(c, partial[i]);
  c = block_census(c);
  if (threadIdx.x == 0) *out = c;
}

/// What the label of a pixel asks of its classes.
struct Targets {
  unsigned label;         // of a class, or a number that is none
  float smoothing, even;  // even: what smoothing gives each class
  const float* weights;   // per class, or null

  __device__ float of(unsigned k) const {
    const float share = (k == label ? 1.0F - smoothing : 0.0F) + even;
    return weights == nullptr ? share : weights[k] * share;
  }
};

template <class Access, class T>
__global__ void loss_kernel(Access access, const T* logits, Labels labels, const float* weights, float smoothing,
                            const Census* census, T* glogits, double* partial, unsigned turns) {
  __shared__ double scratch[32];
  constexpr int K = Access::kKept;
  alignas(16) __shared__ unsigned char tile[Access::template kTileBytes<T>];
  const unsigned classes = labels.classes;
  const double normaliser = census->weight;
  const auto scale = static_cast<float>(normaliser > 0 ? 1.0 / normaliser : 0.0);
  const bool plain = weights == nullptr && smoothing == 0;  // one class has target 1, the others 0
  double total = 0;
  for (unsigned turn = 0; turn < turns; ++turn) {
    const PixelLane at = access.lane(turn);
    const long long y = labels.at(at.pixel);
    const auto row = access.load(logits, at, turn, tile);
    const bool valid = y != labels.ignore;
    const bool outside = labels.outside(y);
    const Targets target{y >= 0 && y < classes ? static_cast<unsigned>(y) : ~0U, smoothing,
                         smoothing / static_cast<float>(classes), weights};

    const float largest = row.max();
    [[maybe_unused]] float kept[K > 0 ? K : 1];  // exponentials
    const float sum = row.sum([&](float v, unsigned, unsigned j) {
      const float e = expf(v - largest);
      if constexpr (K > 0) kept[j] = e;
      return e;
    });
    const float ln_sum = largest + logf(sum);
    float targets = 1;
    if (!plain) targets = row.sum([=](float, unsigned k, unsigned) { return target.of(k); });
    const float share = outside ? NAN : scale * targets / sum;
    const bool writes = glogits != nullptr && access.writes(at);
    T* out = access.place(glogits, at, tile);
    const auto write = [&](float v, unsigned k, unsigned j, float t) {
      if (!writes) return;
      float e;
      if constexpr (K > 0) {
        e = kept[j];
      } else {
        e = expf(v - largest);
      }
      out[k] = from_float<T>(valid ? share * e - scale * t : 0.0F);
    };
    float loss = 0;
    if (plain) {
      loss = row.sum([&](float v, unsigned k, unsigned j) {
        const bool here = k == target.label;
        write(v, k, j, here ? 1.0F : 0.0F);
        return here ? ln_sum - v : 0.0F;
      });
    } else {
      loss = row.sum([&](float v, unsigned k, unsigned j) {
        const float t = target.of(k);
        write(v, k, j, t);
        return t > 0 ? t * (ln_sum - v) : 0.0F;
      });
    }
    if (glogits != nullptr) access.flush(glogits, turn, tile);
    if (at.active && at.lane == 0 && valid) total += static_cast<double>(loss);
    if (at.active && outside) total = NAN;
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void finish_loss_kernel(const double* partial, unsigned count, const Census* census, float* loss) {
  __shared__ double scratch[32];
  const double sum = sum_all(partial, count, scratch);
  const double normaliser = census->weight;
  if (threadIdx.x == 0) *loss = static_cast<float>(sum != sum ? sum : (normaliser > 0 ? sum / normaliser : 0.0));
}

}  // namespace

void cross_entropy_cuda(const TensorView& logits, const TensorView& labels, const TensorView& class_weights,
                        const TensorView& loss, const TensorView& glogits, const CrossEntropyArgs& args) {
  const std::int64_t count = logits.n() * logits.h() * logits.w();
  LIMBECK_CHECK(count > 0 && count < (std::int64_t{1} << 26), "cross_entropy", "{} pixels, expected 1 to 2^26", count);
  const auto pixels = static_cast<unsigned>(count);
  const unsigned census_blocks = std::min(ceil_div(count, 16 * kBlock), 512U);
  const Labels y{{labels.data, labels.dtype, args.ignore_index}, static_cast<unsigned>(logits.c())};
  const Scratch census((1 + census_blocks) * sizeof(Census));
  auto* total = census.as<Census>();
  launch(census_kernel, census_blocks, kBlock, y, class_weights.ptr<const float>(), pixels, total + 1);
  launch(finish_census_kernel, 1, kBlock, total + 1, census_blocks, total);
  visit_fast_dtype("cross_entropy", logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto run = [&]<class Access>(const Access& access) {
      const PixelTurns turns(count, access.lanes_wanted);
      const Scratch partial(turns.blocks * sizeof(double));
      launch(loss_kernel<Access, T>, turns.blocks, kBlock, access, logits.ptr<const T>(), y,
             class_weights.ptr<const float>(), static_cast<float>(args.label_smoothing), total, glogits.ptr<T>(),
             partial.as<double>(), turns.turns);
      launch(finish_loss_kernel, 1, kBlock, partial.as<double>(), turns.blocks, total, loss.ptr<float>());
    };
    visit_pixels(count, logits.c(), run, logits.ptr<const T>(), glogits.ptr<const T>());
  });
  if (!synchronous()) return;
  Census seen{};
  copy_to_host(current_device(), &seen, total, sizeof seen);
  if (seen.first_outside < 0) return;
  const std::int64_t i = seen.first_outside;
  std::int64_t label = 0;  // little-endian: a narrow label fills the low bytes
  const auto* at = static_cast<const char*>(labels.data) + static_cast<std::size_t>(i) * size_of(labels.dtype);
  copy_to_host(current_device(), &label, at, size_of(labels.dtype));
  if (labels.dtype == DType::kI32) label = static_cast<std::int32_t>(label);
  const std::int64_t area = logits.h() * logits.w();
  fail_label(i / area, i % area / logits.w(), i % logits.w(), label, logits.c(), args.ignore_index);
}

}  // namespace limbeck::ops
