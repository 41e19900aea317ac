// What this is: folding of batch norm, its cache, and the choice between the two ways of nn/fused.h.
#include "nn/fused.h"

#include <array>
#include <cmath>
#include <optional>

#include "core/autocast.h"
#include "core/dispatch.h"
#include "nn/fold.h"
#include "nn/tracer.h"
#include "ops/copy.h"
#include "ops/device_conv2d.h"
#include "ops/elementwise.h"
#include "ops/packed_conv2d.h"

namespace limbeck::nn {

/// The convolutions for inference made from one Conv2d, one per compute type, each with the tensors it was made from.
struct FoldedConv {
  struct Entry {
    // Holding the sources keeps their storages alive, so an equal address really is the same storage.
    std::array<Tensor, 6> sources;
    std::array<std::uint32_t, 6> versions{};
    double eps = 0.0;
    ops::Activation act = ops::Activation::kNone;
    std::optional<ops::PackedConv2d> packed;  // on the CPU
    std::optional<ops::DeviceConv2d> device;  // on a GPU
  };
  Entry f32;
  Entry bf16;
};

namespace {

std::array<Tensor, 6> sources_of(const Conv2d& conv, const BatchNorm2d* bn) {
  if (bn == nullptr) return {conv.weight(), conv.bias()};
  return {conv.weight(), conv.bias(), bn->weight(), bn->bias(), bn->running_mean(), bn->running_var()};
}

bool is_current(const FoldedConv::Entry& entry, const std::array<Tensor, 6>& now, double eps, ops::Activation act) {
  if ((!entry.packed && !entry.device) || entry.eps != eps || entry.act != act) return false;
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (now[i].defined() != entry.sources[i].defined()) return false;
    if (!now[i].defined()) continue;
    if (!(now[i].impl() == entry.sources[i].impl()) || now[i].version() != entry.versions[i]) return false;
  }
  return true;
}

const FoldedConv::Entry& folded_for(Conv2d& conv, const BatchNorm2d* bn, ops::Activation act, DType compute) {
  if (!conv.folded()) conv.folded() = std::make_shared<FoldedConv>();
  FoldedConv::Entry& entry = compute == DType::kBF16 ? conv.folded()->bf16 : conv.folded()->f32;
  const auto now = sources_of(conv, bn);
  const double eps = bn != nullptr ? bn->eps() : 0.0;
  if (!is_current(entry, now, eps, act)) {
    const FoldedWeights folded = fold(conv, bn);
    entry.packed.reset();
    entry.device.reset();
    if (const Device device = conv.weight().device(); device.is_cuda()) {
      entry.device.emplace(folded.weight, folded.bias, conv.options(), act, compute, device);
    } else {
      entry.packed.emplace(folded.weight, folded.bias, conv.options(), act, compute);
    }
    entry.sources = now;
    for (std::size_t i = 0; i < now.size(); ++i) entry.versions[i] = now[i].defined() ? now[i].version() : 0;
    entry.eps = eps;
    entry.act = act;
  }
  return entry;
}

/// True when nothing is to be recorded and there is a convolution for inference for these tensors.
bool may_fold(const Conv2d& conv, const BatchNorm2d* bn, const Tensor& x, const Tensor& residual) {
  if (conv.is_training() || (bn != nullptr && bn->is_training())) return false;
  if (x.device().is_meta() || !(x.device() == conv.weight().device()) || ReferenceGuard::active()) return false;
  if (x.dtype() != DType::kF32 && x.dtype() != DType::kBF16) return false;
  if (conv.weight().dtype() != DType::kF32) return false;
  const Tensor none;
  return !should_record({&x, &residual, &conv.weight(), &conv.bias(), bn != nullptr ? &bn->weight() : &none,
                         bn != nullptr ? &bn->bias() : &none});
}

void trace(const UnaryModule& layer, const Shape& input, const Tensor& output, const char* suffix = "") {
  if (LayerTracer* tracer = LayerTracer::active()) tracer->record(layer, input, output, suffix);
}

const char* suffix_of(ops::Activation act, bool residual) {
  switch (act) {
    case ops::Activation::kNone: return residual ? " + add" : "";
    case ops::Activation::kRelu: return residual ? " + add + ReLU" : " + ReLU";
    case ops::Activation::kRelu6: return residual ? " + add + ReLU6" : " + ReLU6";
  }
  return "";
}

Tensor run_folded(Conv2d& conv, const BatchNorm2d* bn, ops::Activation act, const Tensor& x, const Tensor& residual) {
  const DType compute = AutocastGuard::enabled() || x.dtype() == DType::kBF16 ? DType::kBF16 : DType::kF32;
  const FoldedConv::Entry& entry = folded_for(conv, bn, act, compute);
  if (entry.device) return (*entry.device)(x, residual);
  const auto as_compute = [&](const Tensor& t) { return t.defined() && t.dtype() != compute ? t.copy_as(compute) : t; };
  return (*entry.packed)(as_compute(x), as_compute(residual));
}

}  // namespace

FoldedWeights fold(const Tensor& weight, const Tensor& bias, const NormTensors& norm) {
  const auto out = static_cast<std::size_t>(weight.size(0));
  std::vector<double> w = weight.to_vector<double>();
  std::vector<double> b = bias.defined() ? bias.to_vector<double>() : std::vector<double>(out, 0.0);
  const auto gamma = norm.gamma.to_vector<double>();
  const auto beta = norm.beta.to_vector<double>();
  const auto mean = norm.mean.to_vector<double>();
  const auto var = norm.var.to_vector<double>();
  const std::size_t per_channel = w.size() / out;
  for (std::size_t o = 0; o < out; ++o) {
    const double scale = gamma[o] / std::sqrt(var[o] + norm.eps);
    for (std::size_t i = 0; i < per_channel; ++i) w[o * per_channel + i] *= scale;
    b[o] = (b[o] - mean[o]) * scale + beta[o];
  }
  const std::vector<float> wf(w.begin(), w.end());
  const std::vector<float> bf(b.begin(), b.end());
  return {Tensor::from(wf, weight.shape()), Tensor::from(bf, Shape{weight.size(0)})};
}

FoldedWeights fold(const Conv2d& conv, const BatchNorm2d* bn) {
  if (bn != nullptr) {
    return fold(conv.weight(), conv.bias(),
                {bn->weight(), bn->bias(), bn->running_mean(), bn->running_var(), bn->eps()});
  }
  const Tensor bias = conv.bias().defined() ? conv.bias().copy_as(DType::kF32) : Tensor::zeros({conv.weight().size(0)});
  return {conv.weight().copy_as(DType::kF32), bias};
}

Tensor activate(const Tensor& x, ops::Activation act) {
  switch (act) {
    case ops::Activation::kNone: return x;
    case ops::Activation::kRelu: return ops::relu(x);
    case ops::Activation::kRelu6: return ops::relu6(x);
  }
  return x;
}

Tensor conv_bn_act(Conv2d& conv, BatchNorm2d& bn, ops::Activation act, const Tensor& x, const Tensor& residual) {
  const bool with_residual = residual.defined();
  if (may_fold(conv, &bn, x, residual)) {
    Tensor y;
    {
      const ModuleScope scope(conv);
      y = run_folded(conv, &bn, act, x, residual);
      trace(conv, x.shape(), y);
    }
    const ModuleScope scope(bn);
    trace(bn, y.shape(), y, suffix_of(act, with_residual));
    return y;
  }
  // The packed copy will be stale after the next optimizer step; a training network need not hold its weights twice.
  if (conv.is_training()) conv.folded().reset();
  Tensor y;
  {
    const ModuleScope scope(conv);
    y = ops::conv2d(x, conv.weight(), conv.bias(), conv.options());
    trace(conv, x.shape(), y);
  }
  const ModuleScope scope(bn);
  Tensor z = bn.apply(y, act, residual);
  trace(bn, y.shape(), z, suffix_of(act, with_residual));
  return z;
}

Tensor bn_act(BatchNorm2d& bn, ops::Activation act, const Tensor& x) {
  const ModuleScope scope(bn);
  Tensor y = bn.apply(x, act);
  trace(bn, x.shape(), y, suffix_of(act, false));
  return y;
}

Tensor conv_act(Conv2d& conv, ops::Activation act, const Tensor& x) {
  const ModuleScope scope(conv);
  Tensor y = may_fold(conv, nullptr, x, {}) ? run_folded(conv, nullptr, act, x, {})
                                            : activate(ops::conv2d(x, conv.weight(), conv.bias(), conv.options()), act);
  trace(conv, x.shape(), y, suffix_of(act, false));
  return y;
}

Tensor Conv2d::forward(const Tensor& x) {
  if (may_fold(*this, nullptr, x, {})) return run_folded(*this, nullptr, ops::Activation::kNone, x, {});
  return ops::conv2d(x, weight_, bias_, options_);
}

namespace {

ConvArgs without_bias(ConvArgs args) {
  args.bias = false;
  return args;
}

}  // namespace

ConvBnAct::ConvBnAct(const ConvArgs& args, BatchNormArgs bn, ops::Activation act, Generator& generator)
    : conv_(without_bias(args), generator), bn_(args.out, bn), act_(act) {
  register_module("0", conv_);
  register_module("1", bn_);
}

}  // namespace limbeck::nn
