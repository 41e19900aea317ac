// What this is: named stretches of the host's time for a profiler that listens (Nsight Systems shows them above the kernels).
//   Without a profiler a range costs a few nanoseconds, in a build without CUDA the call of an empty function.
#pragma once

namespace limbeck {

/// From here to the end of the scope, inside of the ranges that are open. `name` is copied.
class ProfileRange {
 public:
  explicit ProfileRange(const char* name) noexcept;
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
  ~ProfileRange();
};

}  // namespace limbeck
