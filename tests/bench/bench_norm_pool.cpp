// Speed of the memory-bound ops: batch norm, pooling, resizing; and of a plain copy to compare them with.
// Usage: bench_norm_pool [--benchmark_filter=batch_norm] [--benchmark_format=json]
//        on a shared machine with OMP_WAIT_POLICY=passive and --benchmark_enable_random_interleaving=true
// bytes_per_second counts the least traffic an op needs: batch norm 2 reads + 1 write forward and 4 reads + 1 write
// backward, the others each input and output once.
#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>
#include <string>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "ops/batch_norm.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"

using namespace limbeck;
using ops::Activation;

namespace {

Tensor normal(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  Generator g(1);
  fill_normal_(t, g, 0.5, 2.0);
  return t;
}

double bytes_of(const Tensor& t) { return static_cast<double>(t.numel()) * static_cast<double>(size_of(t.dtype())); }

void report(benchmark::State& state, double bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
}

void copy(benchmark::State& state, const Shape& shape, DType dtype) {
  const Tensor x = normal(shape, dtype);
  const Tensor y = Tensor::empty(shape, dtype);
  const auto lines = static_cast<std::int64_t>(bytes_of(x)) / 64;
  for (auto _ : state) {
    parallel_for(lines, 1024, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(static_cast<char*>(y.raw_data()) + 64 * begin, static_cast<const char*>(x.raw_data()) + 64 * begin,
                  static_cast<std::size_t>(end - begin) * 64);
    });
  }
  report(state, 2 * bytes_of(x));
}

using Op = std::function<Tensor(const Tensor&)>;

/// Times op(x), recording as in training. `passes`: traffic in reads and writes of x and y.
void forward(benchmark::State& state, const Tensor& x, const Op& op, double x_passes, double y_passes) {
  x.set_requires_grad(true);
  double bytes = 0;
  for (auto _ : state) {
    const Tensor y = op(x);
    bytes = x_passes * bytes_of(x) + y_passes * bytes_of(y);
  }
  report(state, bytes);
}

/// Times the backward of op(x) alone.
void gradient(benchmark::State& state, const Tensor& x, const Op& op, double x_passes, double y_passes) {
  x.set_requires_grad(true);
  const Tensor y = op(x);
  const Tensor seed = normal(y.shape(), y.dtype());
  const auto producer = y.impl()->autograd->producer;
  for (auto _ : state) {
    Tensor gx[4];
    producer->backward(std::span<const Tensor>(&seed, 1), std::span<Tensor>(gx));
  }
  report(state, x_passes * bytes_of(x) + y_passes * bytes_of(y));
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->UseRealTime()->Unit(benchmark::kMillisecond);
}

void add_batch_norm(const Shape& shape, DType dtype) {
  const std::string where = fmt::format("{}/{}", name_of(dtype), shape);
  const Tensor gamma = Tensor::full({shape[1]}, 1.0).set_requires_grad(true);
  const Tensor beta = Tensor::zeros({shape[1]}).set_requires_grad(true);
  const Tensor mean = Tensor::zeros({shape[1]});
  const Tensor var = Tensor::full({shape[1]}, 1.0);
  const auto with = [=](bool training, Activation act) {
    return
        [=](const Tensor& x) { return ops::batch_norm(x, gamma, beta, mean, var, {.training = training, .act = act}); };
  };
  add("copy/" + where, [=](benchmark::State& s) { copy(s, shape, dtype); });
  for (const Activation act : {Activation::kNone, Activation::kRelu6}) {
    const std::string name = fmt::format("batch_norm_{}", ops::name_of(act));
    add(name + "_forward/" + where,
        [=](benchmark::State& s) { forward(s, normal(shape, dtype), with(true, act), 2, 1); });
    add(name + "_backward/" + where,
        [=](benchmark::State& s) { gradient(s, normal(shape, dtype), with(true, act), 3, 2); });
  }
  add("batch_norm_eval/" + where, [=](benchmark::State& s) {
    const NoGradGuard off;
    forward(s, normal(shape, dtype), with(false, Activation::kRelu6), 1, 1);
  });
}

void add_op(const std::string& name, const Shape& shape, DType dtype, const Op& op) {
  const std::string where = fmt::format("{}/{}", name_of(dtype), shape);
  add(name + "_forward/" + where, [=](benchmark::State& s) { forward(s, normal(shape, dtype), op, 1, 1); });
  add(name + "_backward/" + where, [=](benchmark::State& s) { gradient(s, normal(shape, dtype), op, 1, 1); });
}

void register_all() {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    add_batch_norm({4, 96, 128, 128}, dtype);
    add_batch_norm({4, 144, 64, 64}, dtype);
    add_batch_norm({4, 32, 128, 128}, dtype);
    add_batch_norm({4, 320, 16, 16}, dtype);
    add_op("max_pool2d", {4, 64, 128, 128}, dtype, [](const Tensor& x) {
      return ops::max_pool2d(x, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
    });
    add_op("global_avg_pool2d", {4, 320, 16, 16}, dtype, [](const Tensor& x) { return ops::global_avg_pool2d(x); });
    add_op("adaptive_avg_pool2d_6", {4, 512, 33, 33}, dtype, [](const Tensor& x) {
      return ops::adaptive_avg_pool2d(x, {6, 6});
    });
    const auto bilinear = [](std::int64_t side) {
      return [=](const Tensor& x) { return ops::resize_bilinear(x, {side, side}, false); };
    };
    add_op("resize_bilinear_256", {4, 11, 16, 16}, dtype, bilinear(256));
    add_op("resize_bilinear_256", {4, 11, 64, 64}, dtype, bilinear(256));
    add_op("resize_bilinear_513", {4, 21, 33, 33}, dtype, bilinear(513));
    add_op("resize_bilinear_64", {4, 256, 16, 16}, dtype, bilinear(64));
    add_op("resize_bilinear_16", {4, 256, 1, 1}, dtype, bilinear(16));
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
