#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/config.h"
#include "core/pickle.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "datasets/orientation.h"
#include "tests/fuzz/readers.h"

namespace limbeck::fuzz {
namespace {

/// Bytes as a file with a path, without a disk.
class MemoryFile {
 public:
  explicit MemoryFile(Bytes bytes) : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0 || write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("no file in memory");
    }
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { close(descriptor_); }
  [[nodiscard]] std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

template <class Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::string_view text_of(Bytes file) { return {reinterpret_cast<const char*>(file.data()), file.size()}; }

}  // namespace

bool accepts_safetensors(Bytes file) {
  const MemoryFile memory(file);
  std::size_t entries = 0;
  const bool header = accepts([&] { entries = inspect_safetensors(memory.path()).entries.size(); });
  const bool whole = accepts([&] {
    if (load_safetensors(memory.path()).entries.size() != entries)
      throw std::logic_error("the header has another number of tensors");
  });
  if (header != whole) throw std::logic_error("only one of header and file was refused");
  return whole;
}

bool accepts_torch_file(Bytes file) {
  const MemoryFile memory(file);
  return is_torch_file(memory.path()) && accepts([&] { static_cast<void>(load_torch_file(memory.path())); });
}

bool accepts_pickle(Bytes file) {
  return accepts([&] { static_cast<void>(load_pickle(text_of(file), "fuzz")); });
}

bool accepts_config(Bytes file) {
  std::string dump;
  if (!accepts([&] { dump = Config::parse(text_of(file), "fuzz").dump(); })) return false;
  if (!accepts([&] { static_cast<void>(Config::parse(dump, "dump")); }))
    throw std::logic_error("its own dump is refused");
  return true;
}

bool accepts_image(Bytes file) {
  const bool picture = accepts([&] {
    datasets::Image image = datasets::decode_image(file, "fuzz");
    static_cast<void>(datasets::upright(std::move(image), datasets::orientation_of(file)));
  });
  const MemoryFile memory(file);
  const bool mask = accepts([&] { static_cast<void>(datasets::read_mask(memory.path())); });
  return picture || mask;
}

}  // namespace limbeck::fuzz
