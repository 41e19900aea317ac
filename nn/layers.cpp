// What this is: construction and forward of nn/layers.h. Conv2d::forward is in nn/fused.cpp.
#include "nn/layers.h"

#include <algorithm>

#include "core/step_graph.h"
#include "nn/tracer.h"
#include "ops/batch_norm.h"
#include "ops/dropout.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/matmul.h"

namespace limbeck::nn {
namespace {

Tensor new_tensor(const Shape& shape, DType dtype = DType::kF32) {
  return Tensor::empty(shape, dtype, ParameterDevice::current());
}

Tensor new_filled(const Shape& shape, double value, DType dtype = DType::kF32) {
  Tensor t = new_tensor(shape, dtype);
  t.fill_(value);
  return t;
}

std::string kernel_text(const char* name, std::int64_t kernel, std::int64_t stride, std::int64_t dilation,
                        std::int64_t groups) {
  std::string text = fmt::format("{} {}x{}", name, kernel, kernel);
  if (stride != 1) text += fmt::format(" s{}", stride);
  if (dilation != 1) text += fmt::format(" d{}", dilation);
  if (groups != 1) text += fmt::format(" g{}", groups);
  return text;
}

void check_conv(const char* where, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t groups) {
  LIMBECK_CHECK(in > 0 && out > 0 && kernel > 0, where, "{} -> {} channels, kernel {}; all must be positive", in, out,
                kernel);
  LIMBECK_CHECK(groups > 0 && in % groups == 0 && out % groups == 0, where,
                "{} groups do not divide {} input and {} output channels", groups, in, out);
}

ops::Pool2dOptions pool_options(const PoolArgs& a) {
  const std::int64_t stride = a.stride == 0 ? a.kernel : a.stride;
  return {.kernel = {a.kernel, a.kernel},
          .stride = {stride, stride},
          .padding = {a.padding, a.padding},
          .ceil_mode = a.ceil_mode,
          .count_include_pad = a.count_include_pad};
}

void check_probability(const char* where, double p) {
  LIMBECK_CHECK(p >= 0.0 && p < 1.0, where, "probability {}, expected 0 <= p < 1", p);
}

}  // namespace

// --- convolutions ---------------------------------------------------------------------------------------------------

Conv2d::Conv2d(const ConvArgs& a, Generator& generator)
    : options_{.stride = {a.stride, a.stride},
               .padding = {a.padding, a.padding},
               .dilation = {a.dilation, a.dilation},
               .groups = a.groups} {
  check_conv("conv2d", a.in, a.out, a.kernel, a.groups);
  weight_ = new_tensor({a.out, a.in / a.groups, a.kernel, a.kernel});
  if (a.bias) bias_ = new_tensor({a.out});
  init_layer_(weight_, bias_, a.init, generator);
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
}

std::string Conv2d::type() const {
  return kernel_text("Conv2d", weight_.size(2), options_.stride[0], options_.dilation[0], options_.groups);
}

std::int64_t Conv2d::macs(const Shape&, const Shape& output) const {
  return output.numel() * (weight_.numel() / weight_.size(0));
}

ConvTranspose2d::ConvTranspose2d(const ConvTransposeArgs& a, Generator& generator)
    : options_{.stride = {a.stride, a.stride},
               .padding = {a.padding, a.padding},
               .output_padding = {a.output_padding, a.output_padding},
               .dilation = {a.dilation, a.dilation},
               .groups = a.groups} {
  check_conv("conv_transpose2d", a.in, a.out, a.kernel, a.groups);
  weight_ = new_tensor({a.in, a.out / a.groups, a.kernel, a.kernel});
  if (a.bias) bias_ = new_tensor({a.out});
  init_layer_(weight_, bias_, a.init, generator);
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
}

std::string ConvTranspose2d::type() const {
  return kernel_text("ConvTranspose2d", weight_.size(2), options_.stride[0], options_.dilation[0], options_.groups);
}

Tensor ConvTranspose2d::forward(const Tensor& x) { return ops::conv_transpose2d(x, weight_, bias_, options_); }

Tensor ConvTranspose2d::to_size(const Tensor& x, std::array<std::int64_t, 2> size) {
  const ModuleScope scope(*this);
  LIMBECK_CHECK(x.ndim() == 4, "conv_transpose2d", "input {}, expected [N, C, H, W]", x.shape());
  ops::ConvTranspose2dOptions o = options_;
  for (std::size_t d = 0; d < 2; ++d) {
    const std::int64_t axis = static_cast<std::int64_t>(d) + 2;
    const std::int64_t least =
        (x.size(axis) - 1) * o.stride[d] - 2 * o.padding[d] + o.dilation[d] * (weight_.size(axis) - 1) + 1;
    const std::int64_t most = least + std::max(o.stride[d], o.dilation[d]) - 1;
    LIMBECK_CHECK(size[d] >= least && size[d] <= most, "conv_transpose2d",
                  "input {} cannot become {}x{}: axis {} reaches {} to {}", x.shape(), size[0], size[1], axis, least,
                  most);
    o.output_padding[d] = size[d] - least;
  }
  Tensor y = ops::conv_transpose2d(x, weight_, bias_, o);
  if (LayerTracer* tracer = LayerTracer::active()) tracer->record(*this, x.shape(), y);
  return y;
}

std::int64_t ConvTranspose2d::macs(const Shape& input, const Shape&) const {
  // Every input element meets every weight of its channel once.
  return input.numel() * (weight_.numel() / weight_.size(0));
}

// --- batch norm, linear ---------------------------------------------------------------------------------------------

BatchNorm2d::BatchNorm2d(std::int64_t channels, BatchNormArgs args) : args_(args) {
  LIMBECK_CHECK(channels > 0, "batch_norm", "{} channels, expected at least one", channels);
  LIMBECK_CHECK(args.eps > 0 && args.momentum >= 0 && args.momentum <= 1, "batch_norm",
                "eps {} and momentum {}, expected eps > 0 and 0 <= momentum <= 1", args.eps, args.momentum);
  weight_ = new_filled({channels}, 1.0);
  bias_ = new_filled({channels}, 0.0);
  running_mean_ = new_filled({channels}, 0.0);
  running_var_ = new_filled({channels}, 1.0);
  // A counter is no data of the GPU: it stays where it can be counted without waiting.
  const Device device = ParameterDevice::current();
  num_batches_tracked_ = Tensor::zeros(Shape{}, DType::kI64, device.is_cuda() ? kCpu : device);
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
  register_buffer("running_mean", running_mean_);
  register_buffer("running_var", running_var_);
  register_buffer("num_batches_tracked", num_batches_tracked_);
}

Tensor BatchNorm2d::apply(const Tensor& x, ops::Activation act, const Tensor& residual) {
  if (is_training()) {
    LIMBECK_CHECK(x.numel() > weight_.numel(), "batch_norm",
                  "input {} in {} has a single value per channel; training needs a batch of at least 2 here (the image "
                  "pooling of an ASPP head sees 1x1 maps), or freeze() this layer",
                  x.shape(), ScopeName::current());
    const auto count = [tracked = num_batches_tracked_](std::int64_t times) {
      if (!tracked.device().is_cpu()) return;
      *tracked.data<std::int64_t>() += times;
      tracked.bump_version();
    };
    count(1);
    if (StepGraph* graph = StepGraph::current()) graph->on_replay(count);
  }
  const ops::BatchNormOptions options{
      .training = is_training(), .momentum = args_.momentum, .eps = args_.eps, .act = act};
  return ops::batch_norm(x, weight_, bias_, running_mean_, running_var_, options, residual);
}

Linear::Linear(const LinearArgs& a, Generator& generator) {
  LIMBECK_CHECK(a.in > 0 && a.out > 0, "linear", "{} -> {} features; both must be positive", a.in, a.out);
  weight_ = new_tensor({a.out, a.in});
  if (a.bias) bias_ = new_tensor({a.out});
  init_layer_(weight_, bias_, a.init, generator);
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
}

Tensor Linear::forward(const Tensor& x) { return ops::linear(x, weight_, bias_); }

std::int64_t Linear::macs(const Shape&, const Shape& output) const { return output.numel() * weight_.size(1); }

// --- pooling, activations, dropout, resize ----------------------------------------------------------------------------

MaxPool2d::MaxPool2d(const PoolArgs& args) : options_(pool_options(args)) {}
std::string MaxPool2d::type() const { return kernel_text("MaxPool2d", options_.kernel[0], options_.stride[0], 1, 1); }
Tensor MaxPool2d::forward(const Tensor& x) { return ops::max_pool2d(x, options_); }

AvgPool2d::AvgPool2d(const PoolArgs& args) : options_(pool_options(args)) {}
std::string AvgPool2d::type() const { return kernel_text("AvgPool2d", options_.kernel[0], options_.stride[0], 1, 1); }
Tensor AvgPool2d::forward(const Tensor& x) { return ops::avg_pool2d(x, options_); }

Tensor ReLU::forward(const Tensor& x) { return ops::relu(x); }
Tensor ReLU6::forward(const Tensor& x) { return ops::relu6(x); }
Tensor LeakyReLU::forward(const Tensor& x) { return ops::leaky_relu(x, slope_); }

Generator& GeneratorScope::current() noexcept {
  static thread_local Generator fallback(0, 0);
  return current_ != nullptr ? *current_ : fallback;
}

Dropout::Dropout(double p) : p_(p) { check_probability("dropout", p); }
Tensor Dropout::forward(const Tensor& x) {
  if (!is_training() || p_ == 0.0) return x;
  return ops::dropout(x, p_, true, GeneratorScope::current());
}

Dropout2d::Dropout2d(double p) : p_(p) { check_probability("dropout2d", p); }
Tensor Dropout2d::forward(const Tensor& x) {
  if (!is_training() || p_ == 0.0) return x;
  return ops::dropout2d(x, p_, true, GeneratorScope::current());
}

Tensor Upsample::forward(const Tensor& x) {
  std::array<std::int64_t, 2> size = args_.size;
  if (size[0] == 0) size = {x.size(2) * args_.scale, x.size(3) * args_.scale};
  return args_.bilinear ? ops::resize_bilinear(x, size, args_.align_corners) : ops::resize_nearest(x, size);
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& child : children_) y = (*child)(y);
  return y;
}

}  // namespace limbeck::nn
