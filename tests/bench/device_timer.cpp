// What this is: the clock of device_timer.h: two events of CUDA.
#include "tests/bench/device_timer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cuda/runtime.h"

namespace limbeck::bench {
namespace {

class Timer {
 public:
  Timer() {
    cuda::check(cudaEventCreate(&begin_), "cudaEventCreate");
    cuda::check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }

  double ms(int runs, const std::function<void()>& work) {
    cuda::check(cudaEventRecord(begin_, cuda::stream()), "cudaEventRecord");
    for (int i = 0; i < runs; ++i) work();
    cuda::check(cudaEventRecord(end_, cuda::stream()), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return static_cast<double>(ms) / runs;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

double device_ms(int runs, const std::function<void()>& work) { return Timer().ms(runs, work); }

double median_device_ms(const std::function<void()>& work) {
  Timer timer;
  static_cast<void>(timer.ms(2, work));  // loads kernels, chooses algorithms
  const double about = std::max(timer.ms(3, work), 1e-3);
  const int runs = std::clamp(static_cast<int>(std::lround(10.0 / about)), 2, 1000);
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) times.push_back(timer.ms(runs, work));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double median_copy_ms(void* to, const void* from, std::size_t bytes) {
  return median_device_ms([&] {
    cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda::stream()), "cudaMemcpyAsync");
  });
}

}  // namespace limbeck::bench
