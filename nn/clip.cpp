// What this is: nn/clip.h on the chunk loop of nn/multi_tensor.h.
#include "nn/clip.h"

#include <cmath>

#include "core/cuda.h"
#include "nn/device_update.h"
#include "nn/multi_tensor.h"

namespace limbeck::nn {
namespace {

struct Gradients {
  std::vector<Tensor> tensors;
  std::vector<Chunk> chunks;
};

Gradients gradients_of(std::span<const Tensor> parameters) {
  Gradients out;
  for (const Tensor& p : parameters) {
    const Tensor g = p.grad();
    if (!g.defined()) continue;
    LIMBECK_CHECK(g.is_dense() && (g.dtype() == DType::kF32 || g.dtype() == DType::kF64), "clip_grad_norm",
                  "gradient {}, expected a dense f32 or f64 tensor", g.describe());
    append_chunks(out.chunks, out.tensors.size(), g.numel());
    out.tensors.push_back(g);
  }
  return out;
}

template <class F>
void visit_chunk(const Gradients& g, const Chunk& chunk, const F& f) {
  visit_reference_dtype("clip_grad_norm", g.tensors[chunk.tensor].dtype(),
                        [&](auto tag) { f(g.tensors[chunk.tensor].data<decltype(tag)>() + chunk.begin); });
}

bool on_device(const Gradients& g) { return !g.tensors.empty() && g.tensors.front().device().is_cuda(); }

/// Makes their device current.
DeviceUpdates updates_of(const Gradients& g) {
  const Device device = g.tensors.front().device();
  DeviceUpdates u;
  for (const Tensor& t : g.tensors) {
    LIMBECK_CHECK(t.device() == device && t.dtype() == DType::kF32, "clip_grad_norm", "gradient {}, expected f32 on {}",
                  t.describe(), device.to_string());
    u.param.push_back(t.data<float>());
    u.count.push_back(t.numel());
  }
  cuda::activate(device, "clip_grad_norm");
  return u;
}

Tensor norm_on_device(const Gradients& g) {
  Tensor norm = Tensor::empty({}, DType::kF32, g.tensors.front().device());
  norm_cuda(updates_of(g), norm.data<float>());
  return norm;
}

/// Scales by min(1, max_norm / (norm + 1e-6)), all of it on the device.
void scale_on_device(const Gradients& g, const Tensor& norm, double max_norm) {
  clip_cuda(updates_of(g), norm.data<float>(), max_norm);
  for (const Tensor& t : g.tensors) t.bump_version();
}

double norm_of(const Gradients& g) {
  if (on_device(g)) return norm_on_device(g).item();
  std::vector<double> partial(g.chunks.size());
  for_each_chunk(g.chunks, [&](std::size_t index, const Chunk& chunk) {
    visit_chunk(g, chunk, [&](const auto* values) {
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = 0; i < chunk.count; ++i) {
        const auto v = static_cast<double>(values[i]);
        sum += v * v;
      }
      partial[index] = sum;
    });
  });
  double total = 0;
  for (const double p : partial) total += p;
  return std::sqrt(total);
}

}  // namespace

double grad_norm(std::span<const Tensor> parameters) { return norm_of(gradients_of(parameters)); }

double clip_grad_norm_(std::span<const Tensor> parameters, double max_norm) {
  LIMBECK_CHECK(max_norm > 0, "clip_grad_norm", "max_norm {}, expected > 0", max_norm);
  const Gradients g = gradients_of(parameters);
  const double norm = norm_of(g);
  if (!std::isfinite(norm)) {
    fail<NonFiniteError>("clip_grad_norm", "the gradient norm is {}; AnomalyGuard names the op that made it", norm);
  }
  const double scale = max_norm / (norm + 1e-6);
  if (scale >= 1.0) return norm;
  if (on_device(g)) {
    scale_on_device(g, Tensor::full({}, norm, DType::kF32, g.tensors.front().device()), max_norm);
    return norm;
  }
  for_each_chunk(g.chunks, [&](std::size_t, const Chunk& chunk) {
    visit_chunk(g, chunk, [&](auto* values) {
      using T = std::remove_pointer_t<decltype(values)>;
      const auto s = static_cast<T>(scale);
#pragma omp simd
      for (std::int64_t i = 0; i < chunk.count; ++i) values[i] *= s;
    });
  });
  for (const Tensor& t : g.tensors) t.bump_version();
  return norm;
}

Tensor clip_grad_norm_on_device_(std::span<const Tensor> parameters, double max_norm) {
  LIMBECK_CHECK(max_norm > 0, "clip_grad_norm", "max_norm {}, expected > 0", max_norm);
  const Gradients g = gradients_of(parameters);
  LIMBECK_CHECK(on_device(g), "clip_grad_norm", "{} gradients, expected some on a GPU", g.tensors.size());
  const Tensor norm = norm_on_device(g);
  scale_on_device(g, norm, max_norm);
  return norm;
}

}  // namespace limbeck::nn
