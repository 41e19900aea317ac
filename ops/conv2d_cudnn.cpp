// The dense convolution by cuDNN: channels-last, f32 or bf16 with f32 accumulation. An algorithm is chosen once per problem,
// among those whose results repeat bit for bit, and kept with its descriptors.
//
// Note [ranked or timed]
//   The best of cuDNN's ranking are run once and the fastest is taken. Two may be as fast as each other within what a clock
//   sees; then another process may take the other, and end with other bits. What was chosen therefore goes into
//   checkpoints (core/choices.h): a run that is resumed gives the bits of one that was not. Where every run of the same
//   configuration has to, train.deterministic or LIMBECK_CUDNN=ranked leaves the choice to the ranking.
//
// Weights are f32. For bf16 maps they are rounded first, and cuDNN returns their gradient rounded to bf16 too (it
// accumulates in f32); it is stored as f32.
#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <mutex>
#include <span>

#include "core/choices.h"
#include "core/cuda.h"
#include "core/cuda/allocator.h"
#include "core/cuda/clock.h"
#include "core/cuda/cudnn.h"
#include "core/cuda/runtime.h"
#include "core/lru_cache.h"
#include "ops/conv2d_kernels.h"

namespace limbeck::ops {
namespace {

using namespace cuda;

constexpr std::size_t kWorkspaceLimit = std::size_t{1} << 30U;
constexpr std::size_t kMostTimed = 4;

constexpr float kOne = 1;
constexpr float kZero = 0;

enum class Direction : std::int64_t { kForward, kData, kWeights };

struct Key {
  std::array<std::int64_t, 20> numbers;
};

/// A problem: the maps x and y and the filter w between them, whichever of the three is computed.
struct Problem {
  Direction direction;
  DType dtype;
  Shape x, w, y;
  Conv2dOptions options;

  [[nodiscard]] Key key() const {
    Key k{};
    std::size_t i = 0;
    const auto put = [&](std::int64_t v) { k.numbers.at(i++) = v; };
    put(current_device().index);
    put(choices::ranked() ? 1 : 0);
    put(static_cast<std::int64_t>(direction) * 16 + static_cast<std::int64_t>(dtype));
    for (const Shape* s : {&x, &w}) std::for_each(s->begin(), s->end(), put);
    put(y[1]);
    for (const auto* pair : {&options.stride, &options.padding, &options.dilation})
      std::for_each(pair->begin(), pair->end(), put);
    put(options.groups);
    return k;
  }
};

class ConvolutionDescriptor {
 public:
  explicit ConvolutionDescriptor(const Conv2dOptions& o) {
    const auto number = [](std::int64_t v) { return static_cast<int>(v); };
    LIMBECK_CUDNN(cudnnCreateConvolutionDescriptor, &descriptor_);
    LIMBECK_CUDNN(cudnnSetConvolution2dDescriptor, descriptor_, number(o.padding[0]), number(o.padding[1]),
                  number(o.stride[0]), number(o.stride[1]), number(o.dilation[0]), number(o.dilation[1]),
                  CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
    LIMBECK_CUDNN(cudnnSetConvolutionGroupCount, descriptor_, number(o.groups));
  }
  ConvolutionDescriptor(const ConvolutionDescriptor&) = delete;
  ConvolutionDescriptor& operator=(const ConvolutionDescriptor&) = delete;
  ~ConvolutionDescriptor() {
    static auto* const destroy =
        cudnn_library().function<decltype(cudnnDestroyConvolutionDescriptor)>("cudnnDestroyConvolutionDescriptor");
    destroy(descriptor_);
  }
  [[nodiscard]] cudnnConvolutionDescriptor_t get() const noexcept { return descriptor_; }

 private:
  cudnnConvolutionDescriptor_t descriptor_ = nullptr;
};

/// FMA_MATH keeps f32 in full precision; bf16 always uses the tensor cores.
cudnnMathType_t math_of(DType dtype) {
  return dtype == DType::kBF16 || tf32_allowed() ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH;
}

struct Plan {
  TensorDescriptor x, y;
  FilterDescriptor w;
  ConvolutionDescriptor convolution;
  int algorithm = 0;
  std::size_t workspace = 0;

  explicit Plan(const Problem& p)
      : x(p.dtype, p.x), y(p.dtype, p.y), w(p.dtype, p.w), convolution(p.options), direction_(p.direction) {
    LIMBECK_CUDNN(cudnnSetConvolutionMathType, convolution.get(), math_of(p.dtype));
    switch (p.direction) {
      case Direction::kForward: {
        std::array<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT> ranking{};
        int count = 0;
        LIMBECK_CUDNN(cudnnGetConvolutionForwardAlgorithm_v7, cudnn_handle(), x.get(), w.get(), convolution.get(),
                      y.get(), static_cast<int>(ranking.size()), &count, ranking.data());
        choose(p, std::span(ranking.data(), static_cast<std::size_t>(count)));
        break;
      }
      case Direction::kData: {
        std::array<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT> ranking{};
        int count = 0;
        LIMBECK_CUDNN(cudnnGetConvolutionBackwardDataAlgorithm_v7, cudnn_handle(), w.get(), y.get(), convolution.get(),
                      x.get(), static_cast<int>(ranking.size()), &count, ranking.data());
        choose(p, std::span(ranking.data(), static_cast<std::size_t>(count)));
        break;
      }
      case Direction::kWeights: {
        std::array<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT> ranking{};
        int count = 0;
        LIMBECK_CUDNN(cudnnGetConvolutionBackwardFilterAlgorithm_v7, cudnn_handle(), x.get(), y.get(),
                      convolution.get(), w.get(), static_cast<int>(ranking.size()), &count, ranking.data());
        choose(p, std::span(ranking.data(), static_cast<std::size_t>(count)));
        break;
      }
    }
  }

  /// What the direction computes, plus beta times what lies there. All three are maps of the device; one is written.
  void run(const void* x_data, const void* w_data, const void* y_data, void* space, const float* beta) const {
    switch (direction_) {
      case Direction::kForward:
        LIMBECK_CUDNN(cudnnConvolutionForward, cudnn_handle(), &kOne, x.get(), x_data, w.get(), w_data,
                      convolution.get(), static_cast<cudnnConvolutionFwdAlgo_t>(algorithm), space, workspace, beta,
                      y.get(), const_cast<void*>(y_data));
        return;
      case Direction::kData:
        LIMBECK_CUDNN(cudnnConvolutionBackwardData, cudnn_handle(), &kOne, w.get(), w_data, y.get(), y_data,
                      convolution.get(), static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm), space, workspace, beta,
                      x.get(), const_cast<void*>(x_data));
        return;
      case Direction::kWeights:
        LIMBECK_CUDNN(cudnnConvolutionBackwardFilter, cudnn_handle(), &kOne, x.get(), x_data, y.get(), y_data,
                      convolution.get(), static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm), space, workspace,
                      beta, w.get(), const_cast<void*>(w_data));
        return;
    }
  }

 private:
  /// The best algorithm that works, repeats bit for bit and fits; see Note [ranked or timed].
  template <class Perf>
  void choose(const Problem& p, std::span<Perf> ranking) {
    const auto unfit = [&](const Perf& c) {
      const bool exact =
          p.dtype == DType::kBF16 || tf32_allowed() || c.mathType == CUDNN_FMA_MATH || c.mathType == CUDNN_DEFAULT_MATH;
      return c.status != CUDNN_STATUS_SUCCESS || c.determinism != CUDNN_DETERMINISTIC || !exact ||
             c.memory > kWorkspaceLimit;
    };
    const auto end = std::remove_if(ranking.begin(), ranking.end(), unfit);
    ranking = ranking.first(static_cast<std::size_t>(end - ranking.begin()));
    if (ranking.empty()) {
      fail(current_op(), "cuDNN offers no repeatable algorithm for x {}, w {}, {} ({})", p.x, p.w,
           p.options.to_string(), name_of(p.dtype));
    }
    use(p, choices::ranked() || ranking.size() == 1 ? ranking[0] : fastest(p, ranking));
  }

  /// Of the best of a ranking; as it was found before, perhaps by another process.
  template <class Perf>
  const Perf& fastest(const Problem& p, std::span<Perf> ranking) {
    const Key key = p.key();
    const std::string name = choice_key("convolution", std::span(key.numbers).subspan(2));
    const auto number = [](const Perf& c) { return std::int64_t{c.algo} * 16 + std::int64_t{c.mathType}; };
    if (const auto known = choices::find(name)) {
      const auto found =
          std::find_if(ranking.begin(), ranking.end(), [&](const Perf& c) { return number(c) == *known; });
      if (found != ranking.end()) return *found;
    }
    if (capturing()) return ranking[0];  // nothing can be timed
    const Perf* best = nullptr;
    float least = std::numeric_limits<float>::infinity();
    for (const Perf& candidate : ranking.first(std::min<std::size_t>(ranking.size(), kMostTimed))) {
      use(p, candidate);
      const float ms = milliseconds(p);
      if (best != nullptr && ms >= least) continue;
      least = ms;
      best = &candidate;
    }
    choices::remember(name, number(*best));
    return *best;
  }

  template <class Perf>
  void use(const Problem& p, const Perf& candidate) {
    algorithm = static_cast<int>(candidate.algo);
    workspace = candidate.memory;
    if (p.dtype == DType::kBF16 || tf32_allowed()) {
      LIMBECK_CUDNN(cudnnSetConvolutionMathType, convolution.get(), candidate.mathType);
    }
  }

  /// On maps of no particular contents.
  [[nodiscard]] float milliseconds(const Problem& p) const {
    const auto bytes = [&](const Shape& s) { return static_cast<std::size_t>(s.numel()) * size_of(p.dtype); };
    const Scratch x_data(bytes(p.x));
    const Scratch w_data(bytes(p.w));
    const Scratch y_data(bytes(p.y));
    const Scratch space(workspace);
    return Clock().milliseconds(
        [&] { run(x_data.as<void>(), w_data.as<void>(), y_data.as<void>(), space.as<void>(), &kZero); });
  }

  Direction direction_;
};

const Plan& plan_for(const Problem& p) {
  static std::mutex mutex;
  static auto* plans = new LruCache<Key, std::unique_ptr<Plan>>(1024);
  const std::lock_guard lock(mutex);
  return *plans->get(p.key(), [&] { return std::make_unique<Plan>(p); });
}

/// `view` as `dtype`: itself, or a rounded copy that lives as long as this object.
class As {
 public:
  As(const TensorView& view, DType dtype) : data_(view.data) {
    if (view.dtype == dtype) return;
    copy_ = std::make_unique<Scratch>(static_cast<std::size_t>(view.numel()) * size_of(dtype));
    data_ = copy_->as<void>();
    copy_view(current_device(), view, {data_, dtype, view.shape, default_strides(view.shape)});
  }
  [[nodiscard]] const void* data() const noexcept { return data_; }

 private:
  std::unique_ptr<Scratch> copy_;
  void* data_;
};

/// Sets every pixel to the bias and returns what the map is multiplied by before the convolution is added.
const float* start_from(const TensorView& bias, const TensorView& map) {
  if (!bias.defined()) return &kZero;
  copy_view(current_device(), {bias.data, bias.dtype, map.shape, Strides{0, bias.strides[0], 0, 0}}, map);
  return &kOne;
}

}  // namespace

void conv2d_forward_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const Conv2dOptions& options,
                         const TensorView& y) {
  const Plan& plan = plan_for({Direction::kForward, x.dtype, x.shape, w.shape, y.shape, options});
  const As weights(w, x.dtype);
  const Scratch workspace(plan.workspace);
  plan.run(x.data, weights.data(), y.data, workspace.as<void>(), start_from(bias, y));
}

void conv2d_backward_data_cuda(const TensorView& gy, const TensorView& w, const TensorView& bias,
                               const Conv2dOptions& options, const TensorView& gx) {
  const Plan& plan = plan_for({Direction::kData, gy.dtype, gx.shape, w.shape, gy.shape, options});
  const As weights(w, gy.dtype);
  const Scratch workspace(plan.workspace);
  plan.run(gx.data, weights.data(), gy.data, workspace.as<void>(), start_from(bias, gx));
}

void conv2d_backward_weights_cuda(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                                  const TensorView& gw) {
  const Plan& plan = plan_for({Direction::kWeights, x.dtype, x.shape, gw.shape, gy.shape, options});
  const Scratch workspace(plan.workspace);
  const bool direct = gw.dtype == x.dtype;
  const Scratch narrow(direct ? 0 : static_cast<std::size_t>(gw.numel()) * size_of(x.dtype));
  void* target = direct ? gw.data : narrow.as<void>();
  plan.run(x.data, target, gy.data, workspace.as<void>(), &kZero);
  if (!direct) copy_view(current_device(), {target, x.dtype, gw.shape, default_strides(gw.shape)}, gw);
}

}  // namespace limbeck::ops
