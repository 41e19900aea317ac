// What this is: the readers of files that come from strangers, as functions of bytes. Fuzzers (fuzz_main.cpp) and tests
//   (tests/test_hostile_files.cpp) feed the same functions.
// What it is not: a check of what was read; each reader has tests of its own for that.
// Read next: tests/fuzz/README.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace limbeck::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// A reader may accept a file or refuse it with a limbeck::Error; it returns which. Whatever else comes out is a bug: another exception,
/// a crash, a leak, an endless loop, an allocation that has nothing to do with the size of the file.
struct Reader {
  const char* name;
  bool (*accepts)(Bytes file);
  /// Makes the checksums and lengths of a damaged file right again, where the format has them: otherwise they hide the code behind
  /// from a fuzzer. May be null.
  void (*repair)(std::span<std::uint8_t> file);
};

bool accepts_safetensors(Bytes file);  ///< header alone, then the whole file
bool accepts_torch_file(Bytes file);   ///< .pth, .pt: zip archives and the older format
bool accepts_pickle(Bytes file);       ///< the pickle inside of them
bool accepts_config(Bytes file);       ///< YAML, also dumped and read again
bool accepts_image(Bytes file);        ///< PNG and JPEG as a picture; PNG as a mask

void repair_safetensors(std::span<std::uint8_t> file);  ///< the length of the header
void repair_zip(std::span<std::uint8_t> file);          ///< checksums of entries that are not compressed
void repair_png(std::span<std::uint8_t> file);          ///< checksums of the chunks

inline constexpr std::array<Reader, 5> kReaders{{{"safetensors", accepts_safetensors, repair_safetensors},
                                                 {"torch_file", accepts_torch_file, repair_zip},
                                                 {"pickle", accepts_pickle, nullptr},
                                                 {"config", accepts_config, nullptr},
                                                 {"image", accepts_image, repair_png}}};

}  // namespace limbeck::fuzz
