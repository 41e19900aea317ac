#include "core/cuda/library.h"

#include <dlfcn.h>

#include "core/error.h"

namespace limbeck::cuda {

Library::Library(const char* what, const std::vector<std::string>& names) : what_(what), handle_(nullptr) {
  std::string reasons;
  for (const std::string& name : names) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) return;
    reasons += fmt::format("; {}", dlerror());
  }
  fail("cuda", "{} could not be loaded{}; install it, or name its folder in LD_LIBRARY_PATH", what_, reasons);
}

void* Library::symbol(const char* name) const {
  void* address = dlsym(handle_, name);
  LIMBECK_CHECK(address != nullptr, "cuda",
                "{} has no function {}; another version is installed than the one that limbeck "
                "was built with",
                what_, name);
  return address;
}

}  // namespace limbeck::cuda
