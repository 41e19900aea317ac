// What this is: a limit on what the process may take, for tests of what happens without memory.
#pragma once

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace limbeck::test {

/// While it lives, the process may take `megabytes` more than it has: an allocation beyond that throws std::bad_alloc, a thread gets no
/// stack. AddressSanitizer keeps its own accounts, so it is not limited.
class MemoryLimit {
 public:
  explicit MemoryLimit([[maybe_unused]] std::uint64_t megabytes) {
    getrlimit(RLIMIT_DATA, &before_);
#if !defined(__SANITIZE_ADDRESS__)
    std::ifstream status("/proc/self/status");
    std::uint64_t kilobytes = 0;
    for (std::string word; status >> word;) {
      if (word == "VmData:") status >> kilobytes;
    }
    REQUIRE(kilobytes > 0);
    rlimit limit = before_;
    limit.rlim_cur = (kilobytes << 10U) + (megabytes << 20U);
    REQUIRE(setrlimit(RLIMIT_DATA, &limit) == 0);
#endif
  }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
  ~MemoryLimit() { setrlimit(RLIMIT_DATA, &before_); }

 private:
  rlimit before_{};
};

}  // namespace limbeck::test
