// What this is: files that are either complete or absent. Reading, atomic writing, atomic directories (checkpoints),
//   a checksum and read-only mapping. Every error names the file and the system's reason.
// What it is not: a format; see core/safetensors.h, core/json.h, core/config.h.
// Read next: core/safetensors.h.
//
// Note [atomic write]
//   1. write to a temporary name in the same folder, 2. fsync the file, 3. rename it over the final name,
//   4. fsync the folder. A crash at any moment leaves the old file or the new one, never a torn one; a failure
//   (disk full, no permission) removes the temporary file and throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace limbeck {

/// Reads a whole file into `out`; returns an empty string, or why it failed ("PATH: No such file or directory").
[[nodiscard]] std::string try_read_file(const std::filesystem::path& path, std::string& out);

/// The bytes of a file. `E` is the exception type, which decides the exit status: read_file<DataError>(path).
template <class E = Error>
[[nodiscard]] std::string read_file(const std::filesystem::path& path) {
  std::string out;
  if (const std::string problem = try_read_file(path, out); !problem.empty())
    fail<E>("file", "cannot read {}", problem);
  return out;
}

/// Writes `bytes` to `path`; see Note [atomic write]. Throws Error naming path and reason.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);
/// The same without waiting for the disk (steps 2 and 4), for what can be made again: thousands of pictures. A killed program leaves
/// the old file or the new one; a machine that loses power may leave an empty one.
void write_file_quickly(const std::filesystem::path& path, std::string_view bytes);

/// write_file_atomic in pieces, for files that should not be built in memory.
///
///   AtomicFile file(path);  file.write(header);  file.write(data);  file.commit();
///
/// Without commit() (an exception, say) nothing appears under `path`.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes) {
    write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  /// fsync, rename, fsync of the folder. The object is finished afterwards.
  void commit() { finish(true); }
  /// rename alone, see write_file_quickly().
  void commit_quickly() { finish(false); }

 private:
  void finish(bool sync);
  [[noreturn]] void give_up(const char* action, int error_number);
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// A folder that appears under its final name only when it is complete.
///
///   AtomicDirectory dir(run / "step_100");
///   save_safetensors(dir.path() / "model.safetensors", ...);
///   dir.commit();
///
/// Writes go to `NAME.tmp-PID` next to the final name. Without commit() the temporary folder is removed.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(const std::filesystem::path& path);
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  ~AtomicDirectory();

  /// The temporary folder to write into.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return temporary_; }
  /// fsyncs every file and folder below, then renames. An existing folder of that name is replaced, and removed only
  /// after the new one is in place.
  void commit();

 private:
  std::filesystem::path final_;
  std::filesystem::path temporary_;
  bool open_ = true;
};

/// CRC-32C (Castagnoli), as used by TensorBoard records and by checkpoints. `seed`: the result of an earlier piece.
[[nodiscard]] std::uint32_t crc32c(std::string_view bytes, std::uint32_t seed = 0) noexcept;
[[nodiscard]] inline std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0) noexcept {
  return crc32c(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), seed);
}
/// crc32c of a whole file, read in pieces.
[[nodiscard]] std::uint32_t crc32c_of_file(const std::filesystem::path& path);

/// A file mapped into memory. Pages are private: a write through a tensor that wraps them does not reach the file.
/// As Storage: `Storage(file->data(), file->size(), file)`. If another process truncates the file while it is mapped,
/// reading the lost part kills the program (SIGBUS); copy what must survive.
class MappedFile {
 public:
  /// Throws Error naming path and reason. An empty file gives size() 0.
  [[nodiscard]] static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::string_view bytes() const noexcept { return {static_cast<const char*>(data_), size_}; }

 private:
  MappedFile(void* data, std::size_t size) noexcept : data_(data), size_(size) {}
  void* data_;
  std::size_t size_;
};

}  // namespace limbeck
