// One fuzzer: libFuzzer calls the reader whose place in kReaders is LIMBECK_FUZZ_READER. See tests/fuzz/README.md.
#include <cstddef>

#include "tests/fuzz/readers.h"

namespace {
constexpr limbeck::fuzz::Reader kReader = limbeck::fuzz::kReaders[LIMBECK_FUZZ_READER];
}

// NOLINTBEGIN(readability-identifier-naming): libFuzzer's names
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (kReader.repair != nullptr && seed % 8 != 0) kReader.repair({data, size});  // wrong checksums want a test, too
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static_cast<void>(kReader.accepts({data, size}));
  return 0;
}
// NOLINTEND(readability-identifier-naming)
