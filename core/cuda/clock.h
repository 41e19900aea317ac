// What this is: how long work of the device's stream takes.
#pragma once

#include "core/cuda/runtime.h"

namespace limbeck::cuda {

class Clock {
 public:
  Clock() {
    check(cudaEventCreate(&begin_), "cudaEventCreate");
    check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  ~Clock() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }

  /// Milliseconds of the shortest of two runs behind a first one. Waits for them.
  template <class Work>
  [[nodiscard]] float milliseconds(const Work& work) const {
    float least = 0;
    for (int i = 0; i < 3; ++i) {
      check(cudaEventRecord(begin_, stream()), "cudaEventRecord");
      work();
      check(cudaEventRecord(end_, stream()), "cudaEventRecord");
      check(cudaEventSynchronize(end_), "cudaEventSynchronize");
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
      if (i == 1 || (i > 1 && ms < least)) least = ms;
    }
    return least;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace limbeck::cuda
