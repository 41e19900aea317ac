// The emulator itself: that it finds the mistakes it is meant to find, and what core/cuda does on a machine without
// driver or memory.
#include <doctest/doctest.h>

#include "core/autograd.h"
#include "core/cuda.h"
#include "core/cuda/kernel.cuh"
#include "core/input_lane.h"
#include "core/readback.h"
#include "core/step_graph.h"
#include "core/tensor.h"
#include "nn/clip.h"
#include "ops/batch_norm.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"
#include "tests/cases/all_cases.h"
#include "tests/cuda_emulation/emulator.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

__global__ void reverse_kernel(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  x[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void racing_kernel(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = static_cast<float>(threadIdx.x + 1);
  x[threadIdx.x] = tile[63 - threadIdx.x];  // no barrier
}

__global__ void divergent_kernel(float* x) {
  if (threadIdx.x < 32) __syncthreads();
  x[threadIdx.x] = 0;
}

__global__ void two_barriers_kernel(float* x) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  x[threadIdx.x] = 0;
}

__global__ void lonely_shuffle_kernel(float* x) {
  if (threadIdx.x != 3) x[threadIdx.x] = cuda::warp_all(1.0F, cuda::Add{});
}

__global__ void sum_kernel(const float* x, float* y) {
  __shared__ float scratch[32];
  const float total = cuda::block_all(x[threadIdx.x], cuda::Add{}, 0.0F, scratch);
  const float largest = cuda::block_all(x[threadIdx.x], cuda::Max{}, -1e30F, scratch);
  y[threadIdx.x] = total + 1000 * largest;
}

// The example of ops/README.md.
template <int V, class T>
__global__ void swish_kernel(const T* x, T* y, unsigned vectors) {
  for (unsigned i = cuda::first(); i < vectors; i += cuda::step()) {
    float v[V];
    cuda::load<V>(x + std::size_t{i} * V, v);  // 16 bytes where the row allows it
    for (int j = 0; j < V; ++j) v[j] = v[j] / (1.0F + expf(-v[j]));
    cuda::store<V>(y + std::size_t{i} * V, v);
  }
}

}  // namespace

TEST_SUITE_BEGIN("cuda_emulation");

TEST_CASE("the kernel that the documentation shows") {
  for (const std::int64_t count : {37, 4096}) {
    Generator g(1);
    Tensor host = Tensor::empty({count});
    fill_normal_(host, g, 0.0, 2.0);
    const Tensor x = host.to(kGpu);
    const Tensor y = Tensor::empty({count}, DType::kF32, kGpu);
    cuda::visit_lanes<float>(
        count,
        [&](auto lanes) {
          constexpr int V = decltype(lanes)::value;
          cuda::launch(swish_kernel<V, float>, 2, cuda::kBlock, x.data<float>(), y.data<float>(), count / V);
        },
        x.data<float>(), y.data<float>());
    const auto in = host.to_vector<double>();
    const auto out = y.to_vector<double>();
    for (std::size_t i = 0; i < in.size(); ++i)
      CHECK(out[i] == doctest::Approx(in[i] / (1 + std::exp(-in[i]))).epsilon(1e-5));
  }
}

TEST_CASE("barriers, shuffles and both orders give the right numbers") {
  for (const bool reverse : {false, true}) {
    emulation::set_reverse_order(reverse);
    std::vector<float> values(128);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    const Tensor x = Tensor::from(values, {128}).to(kGpu);
    cuda::launch(reverse_kernel, 2, 64, x.data<float>());
    const auto got = x.to_vector<float>();
    for (std::size_t i = 0; i < 128; ++i) CHECK(got[i] == static_cast<float>(i / 64 * 64 + 63 - i % 64));

    const Tensor y = Tensor::empty({128}, DType::kF32, kGpu);
    cuda::launch(sum_kernel, 1, 128, x.data<float>(), y.data<float>());
    for (const float v : y.to_vector<float>()) CHECK(v == 127 * 64 + 127000);
  }
  emulation::set_reverse_order(false);
}

TEST_CASE("a missing barrier gives other numbers in the other order") {
  const Tensor x = Tensor::zeros({64}, DType::kF32, kGpu);
  cuda::launch(racing_kernel, 1, 64, x.data<float>());
  const auto forward = x.to_vector<float>();
  const auto right = [](const std::vector<float>& v) {
    bool ok = true;
    for (std::size_t i = 0; i < 64; ++i) ok = ok && v[i] == static_cast<float>(64 - i);
    return ok;
  };
  CHECK_FALSE(right(forward));
}

TEST_CASE("divergent barriers and shuffles are errors, and the next launch works") {
  const Tensor x = Tensor::zeros({64}, DType::kF32, kGpu);
  CHECK_THROWS_WITH_AS(cuda::launch(divergent_kernel, 1, 64, x.data<float>()), doctest::Contains("divergent barrier"),
                       Error);
  CHECK_THROWS_WITH_AS(cuda::launch(two_barriers_kernel, 1, 64, x.data<float>()),
                       doctest::Contains("divergent barrier"), Error);
  CHECK_THROWS_WITH_AS(cuda::launch(lonely_shuffle_kernel, 1, 32, x.data<float>()),
                       doctest::Contains("thread 3, which has ended"), Error);
  CHECK_THROWS_WITH_AS(cuda::launch(reverse_kernel, 1, 33, x.data<float>()), doctest::Contains("whole warps"), Error);
  cuda::launch(reverse_kernel, 1, 64, x.data<float>());
}

TEST_CASE("what a capture may not do") {
  cuda::activate(kGpu, "test");
  const Tensor x = Tensor::zeros({64}, DType::kF32, kGpu);
  const cudaStream_t stream = cuda::stream();
  cudaGraph_t graph = nullptr;
  const auto begin = [&] { REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess); };
  begin();
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaErrorStreamCaptureUnsupported);
  void* p = nullptr;
  CHECK(cudaMalloc(&p, 64) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaFree(x.raw_data()) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaMallocHost(&p, 64) == cudaErrorStreamCaptureUnsupported);
  float host[64] = {};
  CHECK(cudaMemcpyAsync(x.raw_data(), host, sizeof host, cudaMemcpyHostToDevice, stream) ==
        cudaErrorStreamCaptureUnsupported);
  CHECK(cudaMemsetAsync(x.raw_data(), 0, 4, nullptr) == cudaErrorStreamCaptureImplicit);
  cuda::Event event;
  event.record();
  CHECK_THROWS_WITH_AS(event.wait(), doctest::Contains("cudaErrorCapturedEvent"), Error);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // as the allocator does
  CHECK(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
  CHECK(cudaMalloc(&p, 64) == cudaSuccess);
  CHECK(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureUnmatched);

  begin();
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK_THROWS_WITH_AS(cuda::launch(reverse_kernel, 1, 64, x.data<float>()),
                       doctest::Contains("cudaErrorStreamCaptureInvalidated"), Error);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  CHECK(x.to_vector<float>() == std::vector<float>(64));  // and the stream works again
}

TEST_CASE("a graph does what was captured when it is launched, and only then") {
  cuda::activate(kGpu, "test");
  std::vector<float> values(64);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Tensor x = Tensor::from(values, {64}).to(kGpu);
  REQUIRE(cudaStreamBeginCapture(cuda::stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  cuda::launch(reverse_kernel, 1, 64, x.data<float>());
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(cuda::stream(), &graph) == cudaSuccess);
  CHECK(x.to_vector<float>() == values);
  cudaGraphExec_t exec = nullptr;
  REQUIRE(cudaGraphInstantiate(&exec, graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaGraphLaunch(exec, cuda::stream()) == cudaSuccess);
  CHECK(x.to_vector<float>().front() == 63);
  CHECK(cudaGraphLaunch(exec, cuda::stream()) == cudaSuccess);
  CHECK(x.to_vector<float>() == values);
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
}

TEST_CASE("numbers of many steps under way at once are not mixed up") {
  cuda::activate(kGpu, "test");
  const Tensor sum = Tensor::zeros({1}, DType::kF32, kGpu);
  StepGraph graph(std::make_shared<GraphMemory>(kGpu));
  const auto work = [&] {
    const Tensor number = StepGraph::current()->numbers({[](std::int64_t step) { return static_cast<double>(step); }});
    cuda::add_view(kGpu, number.view(), sum.view());
  };
  REQUIRE(graph.record(1, work).empty());
  emulation::set_deferred(true);
  std::vector<Readback> read;
  for (int step = 2; step <= 40; ++step) {
    graph.replay(step);
    read.emplace_back(std::vector<Tensor>{sum});
  }
  double expected = 1;
  for (int step = 2; step <= 40; ++step) {
    expected += step;
    CHECK(read[static_cast<std::size_t>(step - 2)].wait() == std::vector<double>{expected});
  }
  emulation::set_deferred(false);
}

TEST_CASE("batches under way at once are not mixed up") {
  cuda::activate(kGpu, "test");
  const Tensor sum = Tensor::zeros({5000}, DType::kF32, kGpu);
  const Tensor input = Tensor::empty({5000}, DType::kF32, kGpu);
  emulation::set_deferred(true);
  for (int k = 1; k <= 20; ++k) {
    send_input(Tensor::full({5000}, k), input);
    send_input(Tensor::full({3}, k), Tensor::empty({3}, DType::kF32, kGpu));
    cuda::add_view(kGpu, input.view(), sum.view());
  }
  emulation::set_deferred(false);
  CHECK(sum.to_vector<float>() == std::vector<float>(5000, 210.0F));
}

TEST_CASE("ranges for a profiler") {
  const Tensor x = Tensor::full({3}, 2, DType::kF32, kGpu);
  x.set_requires_grad(true);
  auto& ranges = emulation::ranges();
  ranges.clear();
  ops::sum(ops::exp(x)).backward();
  CHECK(ranges == std::vector<std::string>{"> backward", "> sum", "<", "> exp", "<", "<"});
}

TEST_CASE("a pointer to memory of the host is an error") {
  std::vector<float> host(64);
  CHECK_THROWS_WITH_AS(cuda::launch(reverse_kernel, 1, 64, host.data()), doctest::Contains("memory of the host"),
                       Error);
}

TEST_CASE("every kernel in reverse order, each allocation with its own end") {
  emulation::set_reverse_order(true);
  cuda::activate(kGpu, "test");
  cuda::allocator(0).set_caching(false);
  for (const auto& family : test::kFamilies) {
    for (const auto& c : family.cases()) {
      test::check_case_on(kGpu, c);
    }
  }
  cuda::allocator(0).set_caching(true);
  emulation::set_reverse_order(false);
}

TEST_CASE("out of memory names the largest live blocks") {
  const Tensor a = Tensor::empty({3, 1024, 1024}, DType::kF32, kGpu);
  const Tensor b = Tensor::empty({7, 1024, 1024}, DType::kF32, kGpu);
  emulation::set_memory_limit(std::size_t{100} << 20U);
  CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({30, 1024, 1024}, DType::kF32, kGpu)),
                       doctest::Contains("wants 120.0 MiB"), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(Tensor::empty({30, 1024, 1024}, DType::kF32, kGpu)),
                       doctest::Contains("largest live blocks: 28.0 MiB"), Error);
  emulation::set_memory_limit(std::size_t{4} << 30U);
  CHECK(Tensor::zeros({30, 1024, 1024}, DType::kF32, kGpu).numel() == 30 * 1024 * 1024);
  cuda::trim(kGpu);  // the emulation guards every block at every launch
}

TEST_CASE("no driver, no device") {
  emulation::set_device_count(-1);
  CHECK(cuda::device_count() == 0);
  CHECK(cuda::describe_devices() ==
        "no GPU: CUDA driver version is insufficient for CUDA runtime version (cudaErrorInsufficientDriver)");
  CHECK_THROWS_WITH_AS(cuda::activate({DeviceType::kCuda, 1}, "test"),
                       doctest::Contains("cuda:1 is not available: CUDA driver"), ConfigError);
  emulation::set_device_count(0);
  CHECK(cuda::device_count() == 0);
  CHECK_THROWS_WITH_AS(cuda::activate({DeviceType::kCuda, 1}, "test"), doctest::Contains("use --device cpu"),
                       ConfigError);
  emulation::set_device_count(1);
  CHECK_THROWS_WITH_AS(cuda::activate({DeviceType::kCuda, 1}, "test"), doctest::Contains("cuda:0 to cuda:0"),
                       ConfigError);
}

TEST_SUITE_END();

TEST_CASE("what a step does for every layer or parameter takes few launches") {
  Generator g(1);
  const auto map = [&](const Shape& shape) {
    Tensor x = test::random_normal(g, shape).copy_as(DType::kF32).to(kGpu);
    x.set_requires_grad(true);
    return x;
  };
  const auto launches_of = [](const auto& work) {
    emulation::launches().clear();
    work();
    std::size_t total = 0;
    for (const auto& [kernel, count] : emulation::launches()) total += count;
    return total;
  };

  SUBCASE("batch norm: moments, statistics, result; sums, gradient") {
    const Tensor x = map({2, 16, 40, 40});  // large enough for several blocks per channel
    const Tensor gamma = map({16});
    const Tensor beta = map({16});
    const Tensor mean = Tensor::zeros({16}, DType::kF32, kGpu);
    const Tensor var = Tensor::full({16}, 1.0, DType::kF32, kGpu);
    Tensor y;
    CHECK(launches_of([&] { y = ops::batch_norm(x, gamma, beta, mean, var, {.training = true}); }) == 3);
    const Tensor seed = Tensor::full(y.shape(), 0.5, DType::kF32, kGpu);
    const std::size_t copy_of_seed = 1;
    CHECK(launches_of([&] { backward(y, seed); }) == 2 + copy_of_seed);
  }
  SUBCASE("clipping: two per 48 gradients, and the norm") {
    std::vector<Tensor> parameters;
    for (int i = 0; i < 100; ++i) {
      parameters.push_back(map({3 + i}));
      parameters.back().set_grad(map({3 + i}).detach());
    }
    CHECK(launches_of([&] { static_cast<void>(nn::clip_grad_norm_on_device_(parameters, 1.0)); }) == 7);
  }
  SUBCASE("resizing: the tables, and one kernel, or two along one axis each") {
    const Tensor x = map({1, 19, 3, 4});
    Tensor y;
    CHECK(launches_of([&] { y = ops::resize_bilinear(x, {24, 32}, false); }) == 2);
    const Tensor seed = Tensor::full(y.shape(), 0.5, DType::kF32, kGpu);
    const std::size_t copy_of_seed = 1;
    CHECK(launches_of([&] { backward(y, seed); }) == 3 + copy_of_seed);
  }
}
