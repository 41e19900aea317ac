// What this is: the layers: a module around one op each, and Sequential.
// What it is not: the mathematics; that is in ops/. Batch norm and activation that run as one pass: nn/fused.h.
// Names of parameters and buffers are those of torch.nn, so that weight files of the field fit.
// Read next: nn/fused.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "nn/init.h"
#include "nn/module.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/conv_transpose2d.h"
#include "ops/pool2d.h"

namespace limbeck::nn {

struct FoldedConv;  // nn/fused.cpp

/// Sizes of a convolution; square kernels, as every network here uses.
///   Conv2d conv({.in = 3, .out = 64, .kernel = 7, .stride = 2, .padding = 3, .bias = false}, generator);
struct ConvArgs {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  Init init = Init::kDefault;
};

/// 2-D convolution; see ops::conv2d. In inference it runs prepacked (nn/fused.h).
/// Shapes: x [N, in, H, W]; weight [out, in/groups, k, k]; bias [out]; returns [N, out, OH, OW]
/// Throws: sizes that are not positive, or channels that groups does not divide.
class Conv2d final : public UnaryModule {
 public:
  Conv2d(const ConvArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override;
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  [[nodiscard]] std::int64_t macs(const Shape& input, const Shape& output) const override;

  [[nodiscard]] const Tensor& weight() const noexcept { return weight_; }
  /// Undefined without bias.
  [[nodiscard]] const Tensor& bias() const noexcept { return bias_; }
  [[nodiscard]] const ops::Conv2dOptions& options() const noexcept { return options_; }
  /// Cache of nn/fused.cpp; nobody else looks inside.
  [[nodiscard]] std::shared_ptr<FoldedConv>& folded() noexcept { return folded_; }

 private:
  Tensor weight_;
  Tensor bias_;
  ops::Conv2dOptions options_;
  std::shared_ptr<FoldedConv> folded_;
};

struct ConvTransposeArgs {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t output_padding = 0;
  std::int64_t dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  Init init = Init::kDefault;
};

/// Transposed 2-D convolution; see ops::conv_transpose2d.
/// Shapes: x [N, in, H, W]; weight [in, out/groups, k, k]; bias [out];
///         returns [N, out, (H-1)*stride - 2*padding + dilation*(k-1) + output_padding + 1, likewise W]
class ConvTranspose2d final : public UnaryModule {
 public:
  ConvTranspose2d(const ConvTransposeArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override;
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  /// A result of exactly `size` = {OH, OW}: several sizes give the same x under a strided convolution, and the output
  /// padding decides which one comes back. The layer's own output_padding is ignored.
  /// Throws: a size that no output padding below the stride (or dilation) reaches.
  [[nodiscard]] Tensor to_size(const Tensor& x, std::array<std::int64_t, 2> size);
  [[nodiscard]] std::int64_t macs(const Shape& input, const Shape& output) const override;
  [[nodiscard]] const Tensor& weight() const noexcept { return weight_; }
  [[nodiscard]] const Tensor& bias() const noexcept { return bias_; }
  [[nodiscard]] const ops::ConvTranspose2dOptions& options() const noexcept { return options_; }

 private:
  Tensor weight_;
  Tensor bias_;
  ops::ConvTranspose2dOptions options_;
};

struct BatchNormArgs {
  double eps = 1e-5;      ///< 1e-3 for weights that come from TensorFlow
  double momentum = 0.1;  ///< share of the new batch in the running statistics
};

/// Batch normalisation per channel; see ops::batch_norm. Buffers: running_mean, running_var, num_batches_tracked (i64).
/// Formula: y = act(gamma * (x - mean) / sqrt(var + eps) + beta + residual); batch statistics while training
///          (var divides by n there and by n-1 in running_var), running statistics in eval mode.
/// Shapes:  x [N, C, H, W] or [N, C]; weight, bias, running_* [C]; returns the shape of x
/// Throws:  training with a single value per channel, whose variance is zero by definition.
class BatchNorm2d final : public UnaryModule {
 public:
  explicit BatchNorm2d(std::int64_t channels, BatchNormArgs args = {});
  [[nodiscard]] std::string type() const override { return "BatchNorm2d"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override { return apply(x, ops::Activation::kNone); }
  /// With activation and residual in the same pass.
  [[nodiscard]] Tensor apply(const Tensor& x, ops::Activation act, const Tensor& residual = {});

  [[nodiscard]] const Tensor& weight() const noexcept { return weight_; }
  [[nodiscard]] const Tensor& bias() const noexcept { return bias_; }
  [[nodiscard]] const Tensor& running_mean() const noexcept { return running_mean_; }
  [[nodiscard]] const Tensor& running_var() const noexcept { return running_var_; }
  [[nodiscard]] double eps() const noexcept { return args_.eps; }

 private:
  Tensor weight_;
  Tensor bias_;
  Tensor running_mean_;
  Tensor running_var_;
  Tensor num_batches_tracked_;
  BatchNormArgs args_;
};

struct LinearArgs {
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool bias = true;
  Init init = Init::kDefault;
};

/// y = x W^T + b; see ops::linear.
/// Shapes: x [N, in]; weight [out, in]; bias [out]; returns [N, out]
class Linear final : public UnaryModule {
 public:
  Linear(const LinearArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override { return "Linear"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  [[nodiscard]] std::int64_t macs(const Shape& input, const Shape& output) const override;
  [[nodiscard]] const Tensor& weight() const noexcept { return weight_; }
  [[nodiscard]] const Tensor& bias() const noexcept { return bias_; }

 private:
  Tensor weight_;
  Tensor bias_;
};

struct PoolArgs {
  std::int64_t kernel = 2;
  std::int64_t stride = 0;  ///< 0: equal to the kernel
  std::int64_t padding = 0;
  bool ceil_mode = false;
  bool count_include_pad = true;  ///< average pooling only
};

/// Largest value of every window.
/// Shapes: x [N, C, H, W]; returns [N, C, OH, OW]
class MaxPool2d final : public UnaryModule {
 public:
  explicit MaxPool2d(const PoolArgs& args);
  [[nodiscard]] std::string type() const override;
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  ops::Pool2dOptions options_;
};

/// Mean of every window.
/// Shapes: x [N, C, H, W]; returns [N, C, OH, OW]
class AvgPool2d final : public UnaryModule {
 public:
  explicit AvgPool2d(const PoolArgs& args);
  [[nodiscard]] std::string type() const override;
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  ops::Pool2dOptions options_;
};

/// Shapes: any; returns the same
class ReLU final : public UnaryModule {
 public:
  [[nodiscard]] std::string type() const override { return "ReLU"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
};

/// Shapes: any; returns the same
class ReLU6 final : public UnaryModule {
 public:
  [[nodiscard]] std::string type() const override { return "ReLU6"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
};

/// y = x for x > 0, slope * x otherwise.
/// Shapes: any; returns the same
class LeakyReLU final : public UnaryModule {
 public:
  explicit LeakyReLU(double slope = 0.01) : slope_(slope) {}
  [[nodiscard]] std::string type() const override { return "LeakyReLU"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  double slope_;
};

/// The generator that dropout draws from on this thread. A training step installs one per step and rank:
///   Generator g(seed, mix_stream(step, rank));  GeneratorScope scope(g);
/// so that a resumed run repeats bit for bit without saving a generator. Without a scope: seed 0, moving on for ever.
class GeneratorScope {
 public:
  explicit GeneratorScope(Generator& generator) noexcept : previous_(current_) { current_ = &generator; }
  GeneratorScope(const GeneratorScope&) = delete;
  GeneratorScope& operator=(const GeneratorScope&) = delete;
  ~GeneratorScope() { current_ = previous_; }
  [[nodiscard]] static Generator& current() noexcept;

 private:
  static inline thread_local Generator* current_ = nullptr;
  Generator* previous_;
};

/// While training: zeroes each element with probability p and scales the others by 1/(1-p).
/// Shapes: any; returns the same
class Dropout final : public UnaryModule {
 public:
  explicit Dropout(double p = 0.5);
  [[nodiscard]] std::string type() const override { return "Dropout"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  double p_;
};

/// Dropout of whole channels of a sample.
/// Shapes: x [N, C, H, W]; returns the same
class Dropout2d final : public UnaryModule {
 public:
  explicit Dropout2d(double p = 0.5);
  [[nodiscard]] std::string type() const override { return "Dropout2d"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  double p_;
};

struct UpsampleArgs {
  std::array<std::int64_t, 2> size{0, 0};  ///< output height and width; {0, 0}: use `scale`
  std::int64_t scale = 2;
  bool bilinear = true;  ///< false: nearest
  bool align_corners = false;
};

/// Resize to a fixed size or by an integer factor; see ops::resize_bilinear and ops::resize_nearest.
/// Shapes: x [N, C, H, W]; returns [N, C, size] or [N, C, scale*H, scale*W]
class Upsample final : public UnaryModule {
 public:
  explicit Upsample(const UpsampleArgs& args) : args_(args) {}
  [[nodiscard]] std::string type() const override { return "Upsample"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

 private:
  UpsampleArgs args_;
};

/// Shapes: any; returns x itself
class Identity final : public UnaryModule {
 public:
  [[nodiscard]] std::string type() const override { return "Identity"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override { return x; }
};

/// Modules in a row. It owns its children; they are called "0", "1", ... or by the given name.
///   Sequential net;  net.add<Conv2d>(args, g);  net.add<ReLU>();
/// Shapes: those of the first input and the last output
class Sequential : public UnaryModule {
 public:
  [[nodiscard]] std::string type() const override { return "Sequential"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;

  template <class M, class... Args>
  M& add(Args&&... args) {
    return add_named<M>(std::to_string(children_.size()), std::forward<Args>(args)...);
  }
  template <class M, class... Args>
  M& add_named(std::string name, Args&&... args) {
    auto child = std::make_unique<M>(std::forward<Args>(args)...);
    M& reference = *child;
    register_module(std::move(name), reference);
    children_.push_back(std::move(child));
    return reference;
  }
  [[nodiscard]] std::size_t size() const noexcept { return children_.size(); }
  [[nodiscard]] UnaryModule& operator[](std::size_t i) { return *children_.at(i); }

 private:
  std::vector<std::unique_ptr<UnaryModule>> children_;
};

}  // namespace limbeck::nn
