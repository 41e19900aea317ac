// What this is: cuDNN and cuBLASLt, loaded when the first op needs them.
// Why: linked in the ordinary way, a program with GPU code would not start on a machine without these libraries, and
//   loading their hundreds of megabytes would delay every start.
#pragma once

#include <string>
#include <vector>

namespace limbeck::cuda {

/// A shared library. Found by the loader's rules: RPATH, LD_LIBRARY_PATH, the system's folders.
class Library {
 public:
  /// Tries the file names in order. Throws Error naming them all and the loader's reason.
  Library(const char* what, const std::vector<std::string>& names);
  /// Throws if the library has no such function.
  [[nodiscard]] void* symbol(const char* name) const;
  template <class Function>
  [[nodiscard]] Function* function(const char* name) const {
    return reinterpret_cast<Function*>(symbol(name));
  }

 private:
  std::string what_;
  void* handle_;
};

}  // namespace limbeck::cuda
