// Atomic files and folders, CRC-32C, memory mapping. POSIX calls stay inside this file.
// Read next: core/safetensors.cpp, which is built on it.

#include "core/file_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

namespace limbeck {
namespace {

namespace fs = std::filesystem;

std::string reason(int error_number) { return std::generic_category().message(error_number); }

/// Closes a descriptor on scope exit.
struct Descriptor {
  int fd = -1;
  explicit Descriptor(int descriptor) : fd(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// Same folder as `path` (rename does not cross file systems), unique within and between processes.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter{0};
  const unsigned number = counter.fetch_add(1);
  std::string name = path.string() + ".tmp-" + std::to_string(::getpid());
  if (number > 0) name += "-" + std::to_string(number);
  return name;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// fsync of a file or a folder; 0 or the errno. File systems that cannot sync folders (EINVAL) are left alone.
int sync_path(const fs::path& path, bool folder) {
  const Descriptor d(::open(path.c_str(), O_RDONLY | O_CLOEXEC | (folder ? O_DIRECTORY : 0)));
  if (d.fd < 0) return errno;
  if (::fsync(d.fd) != 0 && !(folder && (errno == EINVAL || errno == EROFS))) return errno;
  return 0;
}

/// A trailing slash would make "run/step_1/" a file called "" inside the folder.
fs::path without_trailing_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

std::string try_read_file(const std::filesystem::path& path, std::string& out) {
  const Descriptor d(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (d.fd < 0) return path.string() + ": " + reason(errno);
  struct stat info {};
  if (::fstat(d.fd, &info) != 0) return path.string() + ": " + reason(errno);
  if (S_ISDIR(info.st_mode)) return path.string() + ": " + reason(EISDIR);
  out.clear();
  // st_size is a hint only: pipes and /proc report 0.
  std::size_t capacity = static_cast<std::size_t>(std::max<off_t>(info.st_size, 0)) + 1;
  while (true) {
    const std::size_t used = out.size();
    out.resize(std::max(used + 4096, capacity));
    const ssize_t got = ::read(d.fd, out.data() + used, out.size() - used);
    if (got < 0 && errno == EINTR) {
      out.resize(used);
      continue;
    }
    if (got < 0) return path.string() + ": " + reason(errno);
    out.resize(used + static_cast<std::size_t>(got));
    if (got == 0) return {};
    capacity = std::max(capacity, out.size() + out.size() / 2);
  }
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_quickly(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit_quickly();
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), temporary_(temporary_name(path)) {
  // Renaming over /dev/null or a folder would destroy it or fail late.
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    fail("file", "cannot write {}: it exists and is not a regular file", path_.string());
  }
  ::unlink(temporary_.c_str());  // left by a killed process that had the same number
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("file", "cannot create {}: {}", path_.string(), reason(errno));
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::give_up(const char* action, int error_number) {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
  ::unlink(temporary_.c_str());
  fail("file", "cannot {} {}: {}", action, path_.string(), reason(error_number));
}

void AtomicFile::write(std::string_view bytes) {
  LIMBECK_CHECK(descriptor_ >= 0, "file", "write to {} after it was finished", path_.string());
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30U));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) give_up("write", errno);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
}

void AtomicFile::finish(bool sync) {
  LIMBECK_CHECK(descriptor_ >= 0, "file", "commit of {} after it was finished", path_.string());
  if (sync && ::fsync(descriptor_) != 0) give_up("write", errno);
  // close() can report a delayed write error (NFS); afterwards the descriptor is gone either way.
  if (::close(std::exchange(descriptor_, -1)) != 0) give_up("write", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) give_up("rename to", errno);
  if (!sync) return;
  if (const int e = sync_path(folder_of(path_), true); e != 0) {
    fail("file", "{} is written, but its folder cannot be synced: {}", path_.string(), reason(e));
  }
}

AtomicDirectory::AtomicDirectory(const std::filesystem::path& path)
    : final_(without_trailing_slash(path)), temporary_(temporary_name(final_)) {
  std::error_code e;
  if (fs::exists(final_, e) && !fs::is_directory(final_, e)) {
    fail("file", "cannot create folder {}: a file of that name exists", final_.string());
  }
  fs::remove_all(temporary_, e);
  if (::mkdir(temporary_.c_str(), 0777) != 0)
    fail("file", "cannot create folder {}: {}", final_.string(), reason(errno));
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (open_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  LIMBECK_CHECK(open_, "file", "commit of folder {} after it was finished", final_.string());
  std::error_code e;
  for (auto it = fs::recursive_directory_iterator(temporary_, e); !e && it != fs::recursive_directory_iterator();
       it.increment(e)) {
    const bool folder = it->is_directory();
    if (!folder && !it->is_regular_file()) continue;
    if (const int problem = sync_path(it->path(), folder); problem != 0) {
      fail("file", "cannot write {}: {}", it->path().string(), reason(problem));
    }
  }
  if (e) fail("file", "cannot list {}: {}", temporary_.string(), e.message());
  if (const int problem = sync_path(temporary_, true); problem != 0) {
    fail("file", "cannot write {}: {}", temporary_.string(), reason(problem));
  }

  fs::path old;
  if (::rename(temporary_.c_str(), final_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) fail("file", "cannot rename to {}: {}", final_.string(), reason(errno));
    // A full folder of that name exists. Exchange the two names in one step, so that there is no moment without one.
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) == 0) {
      old = temporary_;
    } else {  // the file system cannot exchange: a crash between the two renames leaves the old folder under `old`
      old = temporary_name(final_.string() + ".old");
      if (::rename(final_.c_str(), old.c_str()) != 0 || ::rename(temporary_.c_str(), final_.c_str()) != 0) {
        const int problem = errno;
        ::rename(old.c_str(), final_.c_str());
        fail("file", "cannot replace folder {}: {}", final_.string(), reason(problem));
      }
    }
  }
  open_ = false;
  if (const int problem = sync_path(folder_of(final_), true); problem != 0) {
    fail("file", "{} is written, but its parent cannot be synced: {}", final_.string(), reason(problem));
  }
  std::error_code ignored;
  if (!old.empty()) fs::remove_all(old, ignored);
}

namespace {

/// Slicing by eight: table[k][b] is the effect of byte b followed by k zero bytes. About 2 GB/s, portable.
using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr CrcTables make_crc_tables() {
  CrcTables t{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0x82F63B78U : 0U);
    t[0][b] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8U) ^ t[0][t[k - 1][b] & 0xFFU];
  }
  return t;
}
constexpr CrcTables kCrc = make_crc_tables();

}  // namespace

std::uint32_t crc32c(std::string_view bytes, std::uint32_t seed) noexcept {
  std::uint32_t crc = ~seed;
  const char* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    std::array<unsigned char, 8> b{};
    std::memcpy(b.data(), p, 8);
    const std::uint32_t low = crc ^ (static_cast<std::uint32_t>(b[0]) | static_cast<std::uint32_t>(b[1]) << 8U |
                                     static_cast<std::uint32_t>(b[2]) << 16U | static_cast<std::uint32_t>(b[3]) << 24U);
    crc = kCrc[7][low & 0xFFU] ^ kCrc[6][(low >> 8U) & 0xFFU] ^ kCrc[5][(low >> 16U) & 0xFFU] ^ kCrc[4][low >> 24U] ^
          kCrc[3][b[4]] ^ kCrc[2][b[5]] ^ kCrc[1][b[6]] ^ kCrc[0][b[7]];
  }
  for (; left > 0; --left, ++p) crc = (crc >> 8U) ^ kCrc[0][(crc ^ static_cast<unsigned char>(*p)) & 0xFFU];
  return ~crc;
}

std::uint32_t crc32c_of_file(const std::filesystem::path& path) {
  const Descriptor d(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (d.fd < 0) fail("file", "cannot read {}: {}", path.string(), reason(errno));
  std::vector<char> buffer(std::size_t{1} << 20U);
  std::uint32_t crc = 0;
  while (true) {
    const ssize_t got = ::read(d.fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("file", "cannot read {}: {}", path.string(), reason(errno));
    if (got == 0) return crc;
    crc = crc32c(std::string_view(buffer.data(), static_cast<std::size_t>(got)), crc);
  }
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor d(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (d.fd < 0) fail("file", "cannot read {}: {}", path.string(), reason(errno));
  struct stat info {};
  if (::fstat(d.fd, &info) != 0) fail("file", "cannot read {}: {}", path.string(), reason(errno));
  if (!S_ISREG(info.st_mode)) fail("file", "cannot map {}: not a regular file", path.string());
  const auto size = static_cast<std::size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {  // mmap refuses length 0
    data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, d.fd, 0);
    if (data == MAP_FAILED) fail("file", "cannot map {}: {}", path.string(), reason(errno));
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace limbeck
